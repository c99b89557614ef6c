"""Which engines tell what their operators take? One file each; the table is in `vit_deploy.profiling`."""
