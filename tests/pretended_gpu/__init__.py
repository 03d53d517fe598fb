"""trivox on a CUDA device that is pretended on the CPU; see `device.cpp`."""
