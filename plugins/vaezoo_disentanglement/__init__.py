"""Disentanglement metrics: MIG, SAP, DCI, the FactorVAE score and modularity."""
