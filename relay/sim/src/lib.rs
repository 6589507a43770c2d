//! Engine operations over a simulated kernel, disk, network and clock
