//! OVA packages: a tar whose first member describes a machine, and whose
//! first VMDK is its system disk.

use std::sync::Arc;

use zerocopy::FromBytes as _;

use super::{Complain, InspectError, vmdk};
use crate::image::ImageFormat;
use crate::image::ova::format::{BLOCK, MAGIC, REGULAR, UstarHeader, octal};
use crate::inspect::part::Part;
use crate::sparse::SparseSource;

type Opened = (Arc<dyn SparseSource>, &'static str);

const COMPLAIN: Complain = Complain(ImageFormat::Ova);
/// Most members that are looked at.
const MOST_MEMBERS: usize = 256;
/// Bytes of a header in memory.
const HEADER: usize = size_of::<UstarHeader>();

/// Whether a file that begins with `head` is a package. A disk may hold
/// anything, a tar too; but no boot sector is named `*.ovf`.
pub(super) fn is_package(head: &[u8]) -> bool {
    let header = head
        .get(..HEADER)
        .and_then(|head| UstarHeader::read_from_bytes(head).ok());
    header.is_some_and(|header| is_sound(&header) && has_ending(&header, ".ovf"))
}

pub(super) fn open(file: &Arc<dyn SparseSource>) -> Result<Opened, InspectError> {
    const CUT: &str = "it is cut off";
    let mut at = 0;
    for number in 0..MOST_MEMBERS {
        let bytes = COMPLAIN.read(file.as_ref(), at, HEADER, CUT)?;
        if bytes.iter().all(|byte| *byte == 0) {
            break;
        }
        let Ok(header) = UstarHeader::read_from_bytes(&bytes) else {
            return COMPLAIN.damaged(CUT);
        };
        COMPLAIN.must(is_sound(&header), "the header of a member has another sum")?;
        let is_first = number > 0 || has_ending(&header, ".ovf");
        COMPLAIN.must(is_first, "its description does not come first")?;
        let Some(length) = octal(&header.size) else {
            return COMPLAIN.damaged("the length of a member is no number");
        };
        let start = at + BLOCK;
        let end = start.checked_add(length);
        let Some(end) = end.filter(|end| *end <= file.size().bytes()) else {
            return COMPLAIN.damaged(CUT);
        };
        if is_file(&header) && has_ending(&header, ".vmdk") {
            let Some(part) = Part::new(Arc::clone(file), start..end) else {
                return COMPLAIN.damaged(CUT);
            };
            let (disk, _) = vmdk::open(Arc::new(part))?;
            return Ok((disk, "its first VMDK"));
        }
        at = end.next_multiple_of(BLOCK);
    }
    COMPLAIN.unsupported("a package without a VMDK")
}

/// Not another file, and not damaged. GNU's tars have another version.
fn is_sound(header: &UstarHeader) -> bool {
    header.magic.starts_with(&MAGIC[..5]) && octal(&header.chksum) == Some(header.sum().into())
}

fn is_file(header: &UstarHeader) -> bool {
    matches!(header.typeflag, REGULAR | 0)
}

fn has_ending(header: &UstarHeader, ending: &str) -> bool {
    let name = header.file_name().unwrap_or_default().to_ascii_lowercase();
    name.ends_with(ending)
}
