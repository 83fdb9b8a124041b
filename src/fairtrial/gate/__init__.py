"""The gate: is a change worse than its reference by a margin? `running.gate` and its relatives say so.

A gate is an ordinary sequential study with `Evidence.not_worse_than` set. The reference is an arm of the study, or runs
that were stored before the change (`baseline`); in that case the two arms differ in `Training.code`. So the ordinary
runner trains its seeds one after the other, stops as soon as every arm is decided, and keeps all of them in the store.
"""

from fairtrial.gate.running import gate, gate_runs, save_baseline

__all__ = ["gate", "gate_runs", "save_baseline"]
