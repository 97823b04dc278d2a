"""The evaluation of models: one row per run, protocol and length.

protocols (targets and context) → plan (adds controls) → scoring (token losses)
→ statistics (means and intervals) → verdicts.
"""
