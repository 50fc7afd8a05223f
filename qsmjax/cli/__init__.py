"""The commands: arguments, messages, exit codes. One file a command.

- `main`: `qsmjax COMMAND`
- `infer`: a field map to a susceptibility map
- `train`: simulated heads or the user's own maps to a network
- `recon`: multi-coil k-space to magnitude and phase
- `cosmos`: several orientations of one head to one susceptibility map
- `export`: the learned inversion as one ONNX file, for other tools
- `simulate`: label maps to scans with their truth
- `study`, `study_jobs`: methods compared over subjects and head orientations

Parts that the commands share:

- `scan`, `echoes`, `kspace`: files to a field map, with every check
- `stages`, `settings`, `methods`: which method stands in which slot, and its options
- `outputs`, `progress`: what is left behind, and what is shown meanwhile
- `errors`: one line and exit status 2
"""
