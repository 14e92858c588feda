"""What compilers for accelerators make of the programs of the product."""
