"""Differentiable architecture search (AdaRec)."""
