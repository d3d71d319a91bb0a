"""The command line.

Nothing is imported before it is needed: `main` reads the arguments, then imports the module of the
one command that runs. `exit_codes` says what a shell script is told, `parsers` what can be asked
for, `follow` what happens while a job is watched, `view`, `plain`, `live` and `objects` what is
seen of it.
"""
