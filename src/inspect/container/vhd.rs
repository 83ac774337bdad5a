//! Fixed VHD.

use std::sync::Arc;

use zerocopy::FromBytes as _;

use super::{Complain, InspectError};
use crate::image::ImageFormat;
use crate::image::vhd::{COOKIE, FIXED, FOOTER_SIZE, Footer, VERSION};
use crate::inspect::part::Part;
use crate::sparse::SparseSource;

type Opened = (Arc<dyn SparseSource>, &'static str);

pub(super) fn open(file: Arc<dyn SparseSource>) -> Result<Opened, InspectError> {
    let complain = Complain(ImageFormat::Vhd);
    let Some(at) = file.size().bytes().checked_sub(FOOTER_SIZE) else {
        return complain.damaged("it is shorter than its footer");
    };
    let bytes = complain.read(file.as_ref(), at, 512, "its footer is cut off")?;
    let Ok(footer) = Footer::read_from_bytes(&bytes) else {
        return complain.damaged("its footer is cut off");
    };
    complain.must(footer.cookie == COOKIE, "it has no footer at its end")?;
    complain.must(
        footer.checksum.get() == footer.sum(),
        "its footer's sum is wrong",
    )?;
    if footer.file_format_version.get() != VERSION {
        return complain.unsupported("another version");
    }
    match footer.disk_type.get() {
        FIXED => {}
        3 => return complain.unsupported("a dynamic disk"),
        4 => return complain.other_file("a parent disk"),
        _ => return complain.damaged("its disk type is unknown"),
    }
    complain.must(
        footer.current_size.get() == at,
        "its footer says another size than the file has",
    )?;
    match Part::new(file, 0..at) {
        Some(disk) => Ok((Arc::new(disk), "fixed")),
        None => complain.damaged("it is cut off"),
    }
}
