"""Learning: from simulated heads, or the user's own maps, to a trained network.

- `config`: `TrainConfig`, settings from the command line; `presets`: configs by name
- `losses`: L1, model and gradient loss, as sums that add up over devices
- `samples`: maps to training samples, inside the step
- `data`: indices or patches for each step; `files`: maps from a folder; `labels`: maps out of label maps
- `state`, `step`: what training changes, and one step of it
- `devices`: the only jit and pmap of this side
- `validation`: whole volumes, beside TKD
- `checkpoint`, `record`: what a run leaves in its work folder
- `loop`: a run from its start, or its last checkpoint, to its end
- `bank`, `scans`, `totals`, `sight`: what the learned inversion is trained on, and what the physics sees of it
- `arrivals`, `patches`, `pool`: subjects that join while others are trained on, and what is cut of them, or gathered
- `learn`, `stage`, `progress`: its run, a stage of it, and how far that has come
- `judging`, `calibration`: what it is worth, and what its deviation is
"""
