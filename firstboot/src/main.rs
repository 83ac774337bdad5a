//! The first-boot agent and the initramfs `/init`, in one static binary.

fn main() {}
