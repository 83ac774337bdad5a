//! Readers of other people, kept out of the release graph.
//!
//! In: a file that we wrote. Out: what somebody else's library reads from it.
//! They stand in a crate of their own because Cargo joins the features of a
//! graph: qcow2-rs alone would mute the `log` crate in every release binary.

use std::path::Path;

use qcow2_rs::dev::Qcow2DevParams;
use qcow2_rs::helpers::Qcow2IoBuf;
use qcow2_rs::utils::qcow2_setup_dev_sync;

/// Bytes that are read at once: a cluster.
const PIECE: u64 = 65_536;

/// All of the disk inside the qcow2 image at `path`, as qcow2-rs reads it:
/// plain reads, deflate only.
///
/// # Errors
///
/// What qcow2-rs says, as text.
pub fn read_qcow2(path: &Path) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime
        .block_on(read(path))
        .map_err(|error| error.to_string())
}

async fn read(path: &Path) -> qcow2_rs::error::Qcow2Result<Vec<u8>> {
    let params = Qcow2DevParams::new(9, None, None, true, false);
    let device = qcow2_setup_dev_sync(path, &params)?;
    device.qcow2_prep_io().await?;
    let size = device.info.virtual_size();
    let mut disk = Vec::new();
    for offset in (0..size).step_by(PIECE as usize) {
        let count = PIECE.min(size - offset) as usize;
        let mut piece = Qcow2IoBuf::<u8>::new(count);
        device.read_at(&mut piece, offset).await?;
        disk.extend_from_slice(&piece);
    }
    Ok(disk)
}
