"""Training speed, memory and losses beside TRL's trainers: `python -m benchmarks.training --help`.

Each run is a process of its own (`child`), which trains one side of a `Scenario` on rows that both
sides share (`rows`): ours by `siqvl.training.stage.train_stage` (`ours`), the peer by TRL's
SFTTrainer or DPOTrainer (`peer`). A callback that both trainers take (`clock`) notes times and
memory; `compare` runs the sides in turns and prints medians.
"""
