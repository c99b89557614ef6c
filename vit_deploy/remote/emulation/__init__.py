"""An Arm computer emulated by QEMU, on which artifacts are proven as on a device that ssh reaches."""
