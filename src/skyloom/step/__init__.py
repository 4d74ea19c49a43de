"""What ``curate.py step=…`` runs: one module or package, one plain function and one file in ``conf/step`` per step."""
