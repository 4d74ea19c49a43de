"""What ``curate.py step=…`` runs: one module, one plain function and one file in ``conf/step`` per step."""
