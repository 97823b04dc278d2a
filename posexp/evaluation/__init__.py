"""Evaluation: models in, rows out. One row per run, protocol and length; posexp/report draws them.

protocols (which targets, which context) → plan (with controls) → passes (what is read once) → scoring (token losses)
→ statistics (means and intervals) → verdicts.
"""
