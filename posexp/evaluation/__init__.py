"""The evaluation of models: one row per run, protocol and length.

protocols (targets and context) → plan (adds controls) → shared_passes (reads each text once) → scoring (token losses)
→ statistics (means and intervals) → verdicts.
"""
