//! Process 1 of the initramfs.

/// Runs as process 1; it never returns, since that would be a kernel panic.
pub fn run() -> ! {
    loop {
        rustix::event::pause();
    }
}
