"""What ``extract.py product=…`` runs: one module, one plain function and one file in ``conf/product`` per product."""
