"""The `towerbus` command's subcommands, one module each."""
