//! OVA packages: a tar whose first member describes a machine, and whose
//! first VMDK is its system disk.

use std::sync::Arc;

use zerocopy::FromBytes as _;

use super::{Complain, InspectError, bounded, vmdk};
use crate::image::ImageFormat;
use crate::image::ova::format::{BLOCK, MAGIC, REGULAR, UstarHeader, octal};
use crate::inspect::part::Part;
use crate::sparse::SparseSource;

type Opened = (Arc<dyn SparseSource>, &'static str);

const COMPLAIN: Complain = Complain(ImageFormat::Ova);
/// Most members that are looked at.
const MOST_MEMBERS: usize = 256;
/// The longest record of pax that is read.
const MOST_EXTENSION: usize = 64 << 10;
/// Bytes of a header in memory.
const HEADER: usize = size_of::<UstarHeader>();

/// Whether a file that begins with `head` is a package. A disk may hold
/// anything, a tar too; but no boot sector is named `*.ovf`. What pax says of a
/// member has its name.
pub(super) fn is_package(head: &[u8]) -> bool {
    let header = head
        .get(..HEADER)
        .and_then(|head| UstarHeader::read_from_bytes(head).ok());
    header.is_some_and(|header| is_sound(&header) && has_ending(&header, ".ovf"))
}

pub(super) fn open(file: &Arc<dyn SparseSource>) -> Result<Opened, InspectError> {
    const CUT: &str = "it is cut off";
    let mut at = 0;
    let mut has_description = false;
    for _ in 0..MOST_MEMBERS {
        let bytes = COMPLAIN.read(file.as_ref(), at, HEADER, CUT)?;
        if bytes.iter().all(|byte| *byte == 0) {
            break;
        }
        let Ok(header) = UstarHeader::read_from_bytes(&bytes) else {
            return COMPLAIN.damaged(CUT);
        };
        COMPLAIN.must(is_sound(&header), "the header of a member has another sum")?;
        let Some(length) = octal(&header.size) else {
            return COMPLAIN.damaged("the length of a member is no number");
        };
        let start = at + BLOCK;
        let end = start.checked_add(length);
        let Some(end) = end.filter(|end| *end <= file.size().bytes()) else {
            return COMPLAIN.damaged(CUT);
        };
        at = end.next_multiple_of(BLOCK);
        if is_extension(&header) {
            // What pax says of the next member; names and times do not matter here.
            let length = bounded(length, MOST_EXTENSION);
            let text = length.map(|length| COMPLAIN.read(file.as_ref(), start, length, CUT));
            let text = text.transpose()?.unwrap_or_default();
            if text.is_empty() || text.windows(6).any(|part| part == b" size=") {
                return COMPLAIN.unsupported("a member that only an extension of pax describes");
            }
            continue;
        }
        has_description |= has_ending(&header, ".ovf");
        COMPLAIN.must(has_description, "its description does not come first")?;
        if is_file(&header) && has_ending(&header, ".vmdk") {
            let Some(part) = Part::new(Arc::clone(file), start..end) else {
                return COMPLAIN.damaged(CUT);
            };
            let (disk, _) = vmdk::open(Arc::new(part))?;
            return Ok((disk, "its first VMDK"));
        }
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

/// A record of pax, for the next member or for all.
fn is_extension(header: &UstarHeader) -> bool {
    matches!(header.typeflag, b'x' | b'g')
}

/// Some tars write names from the folder on: `./box.ovf`.
fn has_ending(header: &UstarHeader, ending: &str) -> bool {
    let name = header.name.split(|byte| *byte == 0).next();
    let name = name.unwrap_or_default().to_ascii_lowercase();
    name.ends_with(ending.as_bytes())
}
