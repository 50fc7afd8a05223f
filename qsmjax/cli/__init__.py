"""The commands: arguments, messages, exit codes. One file a command.

- `main`: `qsmjax COMMAND`
- `infer`: a field map to a susceptibility map
- `train`: simulated heads or the user's own maps to a network
- `errors`: one line and exit status 2
"""
