//! Media that somebody made to hurt: each has one lie, and each is refused
//! with a reason, or is not taken for ours at all.
#![expect(clippy::indexing_slicing, reason = "a test may fail")]
#![expect(clippy::too_many_lines, reason = "tables of cases")]

use super::hostile::{collect, run};
use super::matrix::{Format, volume};
use super::*;

const SITE: &[u8] = b"schema = 1\n[system]\nhostname = \"a\"\n";

/// What must become of a medium.
enum Expect {
    /// Its reason contains one of these.
    Refused(&'static [&'static str]),
    /// Nobody takes it for ours.
    Stranger,
    /// It is told, and says nothing that was not on it.
    Harmless,
}
use Expect::{Harmless, Refused, Stranger};

struct Case {
    name: String,
    image: Vec<u8>,
    expect: Expect,
}

/// Cases of one base image.
struct Cases<'c> {
    base: Vec<u8>,
    kind: &'static str,
    all: &'c mut Vec<Case>,
}

impl Cases<'_> {
    fn add(&mut self, name: impl Into<String>, expect: Expect, change: impl FnOnce(&mut Vec<u8>)) {
        let mut image = self.base.clone();
        change(&mut image);
        let name = format!("{}: {}", self.kind, name.into());
        self.all.push(Case {
            name,
            image,
            expect,
        });
    }
}

fn put16(image: &mut [u8], at: usize, value: u16) {
    image[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put32(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get16(image: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([image[at], image[at + 1]]))
}

fn get32(image: &[u8], at: usize) -> usize {
    get16(image, at) | get16(image, at + 2) << 16
}

fn find(image: &[u8], what: &[u8]) -> usize {
    let found = image.windows(what.len()).position(|bytes| bytes == what);
    found.expect("it is there")
}

const CHAIN: &[&str] = &["lead nowhere", "circle", "less than its"];
const LONG: &[&str] = &["too long"];
const NAMES: &[&str] = &["no medium may hold", "two files", "too many files"];
const NOT_A_FILE: &[&str] = &["copy the file itself"];

/// Bytes of the FAT's slots and tables, found by reading the boot sector.
fn fat(bits: &'static str, kib: u32, kind: &'static str, all: &mut Vec<Case>) -> Option<()> {
    let base = volume(Format::Fat(bits, kib), "VACONFIG")?;
    let slot = {
        // The long name's slots come first; the short one has the cluster.
        let found = base.windows(11).position(|name| name == b"SITE~1  TOM");
        found.unwrap_or_else(|| find(&base, b"SITE    TOM"))
    };
    let license = find(&base, b"LICENSE    ");
    let payload = find(&base, b"PAYLOAD    ");
    let table = get16(&base, 14) * 512;
    let cluster = get16(&base, slot + 26);
    let licensed = get16(&base, license + 26);
    let set = move |image: &mut Vec<u8>, cluster: usize, value: u32| match kind {
        "FAT12" => {
            let at = table + cluster + cluster / 2;
            let value = u16::try_from(value & 0xfff).expect("12 bits");
            let old = u16::from_le_bytes([image[at], image[at + 1]]);
            let new = if cluster % 2 == 1 {
                old & 0x000f | value << 4
            } else {
                old & 0xf000 | value
            };
            put16(image, at, new);
        }
        "FAT16" => put16(
            image,
            table + 2 * cluster,
            u16::try_from(value & 0xffff).expect("16"),
        ),
        _ => put32(image, table + 4 * cluster, value & 0x0fff_ffff),
    };
    let mut cases = Cases { base, kind, all };
    for size in [200_000, 262_144] {
        cases.add(format!("a size of {size}"), Refused(CHAIN), |image| {
            put32(image, slot + 28, size);
        });
        for next in [0, 1, 0x0fff_fff7] {
            let name = format!("a size of {size}, and a chain to {next:#x}");
            cases.add(name, Refused(CHAIN), |image| {
                put32(image, slot + 28, size);
                set(image, cluster, next);
            });
        }
        cases.add(format!("a circle of {size}"), Refused(CHAIN), |image| {
            put32(image, slot + 28, size);
            set(image, cluster, u32::try_from(cluster).expect("small"));
        });
    }
    for size in [262_145, 0x7fff_ffff, u32::MAX] {
        cases.add(format!("a size of {size}"), Refused(LONG), |image| {
            put32(image, slot + 28, size);
        });
    }
    for first in [0, 1, 0xffff] {
        cases.add(
            format!("a first cluster {first:#x}"),
            Refused(CHAIN),
            |image| {
                put16(image, slot + 26, first);
                put16(
                    image,
                    slot + 20,
                    if kind == "FAT32" && first > 1 {
                        first
                    } else {
                        0
                    },
                );
            },
        );
        cases.add(format!("a folder at {first:#x}"), Refused(CHAIN), |image| {
            put16(image, license + 26, first);
            put16(
                image,
                license + 20,
                if kind == "FAT32" && first > 1 {
                    first
                } else {
                    0
                },
            );
        });
    }
    cases.add("a folder in a circle", Refused(CHAIN), |image| {
        set(image, licensed, u32::try_from(licensed).expect("small"));
    });
    cases.add(
        "a folder in place of the file",
        Refused(NOT_A_FILE),
        |image| {
            image[slot + 11] = 0x10;
        },
    );
    cases.add(
        "a file in place of the folder",
        Refused(NOT_A_FILE),
        |image| {
            image[license + 11] = 0x20;
        },
    );
    cases.add(
        "a bundle's folder that is a file",
        Refused(NOT_A_FILE),
        |image| {
            image[payload + 11] = 0x20;
        },
    );
    cases.add("two files of one name", Refused(NAMES), |image| {
        let name = b"SITE    TOM".as_slice();
        image[license..license + 11].copy_from_slice(name);
        image[license + 11] = 0x20;
        // Both short: the long names no longer belong to them.
        let again = [name, &image[license + 11..license + 32]].concat();
        image[slot..slot + 11].copy_from_slice(name);
        image[license..license + 32].copy_from_slice(&again);
        // `site.tom` is not a known name; make it one by its extension.
        for at in [slot, license] {
            image[at..at + 11].copy_from_slice(b"SECRETS AGE");
        }
    });
    for bad in [
        b"../ETC  X  ",
        b"A/B     X  ",
        b"\x01BCDEFGHX  ",
        b"           ",
    ] {
        cases.add(
            format!("the name {}", bad.escape_ascii()),
            Refused(NAMES),
            |image| {
                image[payload..payload + 11].copy_from_slice(bad);
            },
        );
    }
    for (at, byte) in [
        (13, 0),
        (13, 3),
        (11, 1),
        (14, 0),
        (16, 0),
        (16, 9),
        (510, 0),
    ] {
        cases.add(
            format!("byte {at} of the boot sector {byte}"),
            Stranger,
            |image| {
                image[at] = byte;
            },
        );
    }
    let half = cases.base.len() / 2;
    cases.add(
        "the second half missing",
        Refused(&["is cut off"]),
        |image| {
            image.truncate(half);
        },
    );
    if kind == "FAT32" {
        for first in [0, 1, 0x0fff_fff7] {
            cases.add(format!("a root at {first:#x}"), Refused(CHAIN), |image| {
                put32(image, 44, first);
            });
        }
        let root = get32(&cases.base, 44);
        cases.add("a root in a circle", Refused(CHAIN), |image| {
            set(image, root, u32::try_from(root).expect("small"));
        });
    }
    Some(())
}

/// The first block of the root folder, and the record of a name in it.
fn iso_record(image: &[u8], name: &[u8]) -> usize {
    let root = get32(image, 16 * 2048 + 156 + 2) * 2048;
    let found = find(&image[root..root + 4096], name);
    root + found - 33
}

fn iso_cases(all: &mut Vec<Case>) -> Option<()> {
    let plain = volume(Format::Iso(&["-iso-level", "3"]), "VACONFIG")?;
    let rock = volume(Format::Iso(&["-R"]), "VACONFIG")?;
    let record = iso_record(&rock, b"SITE.TOM;1");
    let folder = iso_record(&rock, b"LICENSE");
    let root = 16 * 2048 + 156;
    let blocks = u32::try_from(rock.len() / 2048).expect("small");
    let root_block = get32(&rock, root + 2) * 2048;
    let mut cases = Cases {
        base: rock,
        kind: "ISO",
        all,
    };
    for block in [blocks, blocks + 1, 0x7fff_ffff, u32::MAX] {
        cases.add(
            format!("a root in block {block}"),
            Refused(CHAIN),
            |image| {
                put32(image, root + 2, block);
            },
        );
        cases.add(
            format!("a file in block {block}"),
            Refused(CHAIN),
            |image| {
                put32(image, record + 2, block);
            },
        );
        cases.add(
            format!("a folder in block {block}"),
            Refused(CHAIN),
            |image| {
                put32(image, folder + 2, block);
            },
        );
    }
    for size in [262_145, 0x7fff_ffff, u32::MAX] {
        cases.add(format!("a file of {size} bytes"), Refused(LONG), |image| {
            put32(image, record + 10, size);
        });
        cases.add(
            format!("a root of {size} bytes"),
            Refused(&["lead nowhere", "too many files"]),
            |image| put32(image, root + 10, size),
        );
    }
    for length in [1, 33] {
        cases.add(
            format!("a record of {length} bytes"),
            Refused(&["its folder cannot be"]),
            |image| {
                image[record] = length;
            },
        );
    }
    cases.add(
        "a name longer than its record",
        Refused(&["its folder cannot be"]),
        |image| {
            image[record + 32] = 255;
        },
    );
    cases.add(
        "an empty name",
        Refused(&["its folder cannot be"]),
        |image| {
            image[record + 32] = 0;
        },
    );
    for (flag, what) in [(0x80, "in several parts"), (0x02, "a folder")] {
        cases.add(
            format!("a file that is {what}"),
            Refused(NOT_A_FILE),
            |image| {
                image[record + 25] = flag;
            },
        );
    }
    cases.add("an interleaved file", Refused(NOT_A_FILE), |image| {
        image[record + 26] = 1;
    });
    let system = record + 33 + 10 + 1;
    let name = system + find(&cases.base[system..system + 200], b"NM");
    for bad in [&b"../../a.b"[..], b"a/b/c.tom", b"\x1b[2Jxtoml"] {
        cases.add(
            format!("the name {}", bad.escape_ascii()),
            Refused(NAMES),
            |image| {
                image[name + 5..name + 14].copy_from_slice(bad);
            },
        );
    }
    cases.add("a name that is not UTF-8", Refused(NAMES), |image| {
        image[name + 5] = 0xff;
    });
    // The file's kind in Rock Ridge's PX.
    let px = system + find(&cases.base[system..system + 200], b"PX");
    for (mode, what) in [
        (0o120_777, "link"),
        (0o060_600, "block device"),
        (0o020_600, "character device"),
        (0o010_600, "pipe"),
        (0o140_600, "socket"),
        (0o170_000, "unknown kind"),
    ] {
        cases.add(
            format!("a {what} in place of the file"),
            Refused(NOT_A_FILE),
            |image| {
                put32(image, px + 4, mode);
            },
        );
    }
    // A continuation area in the place of PX, which is longer.
    let continues = move |image: &mut Vec<u8>, block: u32, offset: u32, length: u32| {
        let rest = image[px + 2] - 28;
        image[px..px + 4].copy_from_slice(&[b'C', b'E', 28, 1]);
        put32(image, px + 4, block);
        put32(image, px + 12, offset);
        put32(image, px + 20, length);
        image[px + 28..px + 32].copy_from_slice(&[b'Z', b'Z', rest, 1]);
    };
    let own = u32::try_from(root_block / 2048).expect("small");
    let inside = u32::try_from(px - root_block).expect("small");
    cases.add(
        "a continuation that continues in itself",
        Refused(CHAIN),
        |image| {
            continues(image, own, inside % 2048, 28);
        },
    );
    for (block, offset, length) in [
        (blocks, 0, 28),
        (u32::MAX, 0, 28),
        (20, 2048, 1),
        (20, u32::MAX, u32::MAX),
        (20, 0, u32::MAX),
    ] {
        let name = format!("a continuation in {block} at {offset} of {length}");
        cases.add(name, Refused(&["its long name cannot be"]), |image| {
            continues(image, block, offset, length);
        });
    }
    cases.add("a folder that is the root", Harmless, |image| {
        let place: [u8; 4] = image[root + 2..root + 6].try_into().expect("four");
        image[folder + 2..folder + 6].copy_from_slice(&place);
    });
    cases.add("blocks of another size", Stranger, |image| {
        put16(image, 16 * 2048 + 128, 512);
    });
    cases.add("a root that is no folder", Stranger, |image| {
        image[root + 25] = 0;
    });
    cases.base = plain;
    cases.kind = "ISO without names";
    cases.add("only the descriptors", Refused(CHAIN), |image| {
        image.truncate(18 * 2048);
    });
    Some(())
}

/// Where things are in an ext volume of one group with 1 KiB blocks.
struct Ext {
    base: Vec<u8>,
    inode_size: usize,
    table: usize,
}

impl Ext {
    fn new(kind: &'static str, features: &'static str) -> Option<Self> {
        let base = volume(Format::Ext(kind, features), "VACONFIG")?;
        assert_eq!(get32(&base, 1024 + 24), 0, "1 KiB blocks");
        Some(Self {
            inode_size: get16(&base, 1024 + 88),
            table: get32(&base, 2048 + 8) * 1024,
            base,
        })
    }

    fn inode(&self, number: usize) -> usize {
        self.table + (number - 1) * self.inode_size
    }

    /// The slot of a name in the root folder, which has one block.
    fn slot(&self, name: &[u8]) -> usize {
        let root = self.block_of(2);
        root + find(&self.base[root..root + 1024], name) - 8
    }

    /// The first block of an inode's content.
    fn block_of(&self, number: usize) -> usize {
        let at = self.inode(number) + 40;
        if get16(&self.base, at) == 0xf30a {
            return get32(&self.base, at + 12 + 8) * 1024;
        }
        get32(&self.base, at) * 1024
    }
}

fn ext_cases(kind: &'static str, features: &'static str, all: &mut Vec<Case>) -> Option<()> {
    let ext = Ext::new(kind, features)?;
    let slot = ext.slot(b"site.toml");
    let number = get32(&ext.base, slot);
    let inode = ext.inode(number);
    let root = ext.inode(2);
    let root_block = ext.block_of(2);
    let blocks = get32(&ext.base, 1024 + 4);
    let has_extents = kind == "ext4";
    let small = |value: usize| u32::try_from(value).expect("small");
    let mut cases = Cases {
        base: ext.base.clone(),
        kind,
        all,
    };
    for value in [0x7fff_ffff, u32::MAX] {
        cases.add(format!("the inode {value}"), Refused(CHAIN), |image| {
            put32(image, slot, value);
        });
    }
    for size in [262_145, u32::MAX] {
        cases.add(format!("a size of {size}"), Refused(LONG), |image| {
            put32(image, inode + 4, size);
        });
    }
    cases.add("a size of 2^40", Refused(LONG), |image| {
        put32(image, inode + 108, 256);
    });
    cases.add("a root of 2 GiB", Refused(&["too many files"]), |image| {
        put32(image, root + 4, 0x7fff_ffff);
    });
    for (mode, what) in [
        (0o120_777, "link"),
        (0o060_600, "block device"),
        (0o020_600, "character device"),
        (0o010_600, "pipe"),
        (0o140_600, "socket"),
        (0o040_755, "folder"),
        (0o170_000, "unknown kind"),
    ] {
        cases.add(
            format!("a {what} in place of the file"),
            Refused(NOT_A_FILE),
            |image| {
                put16(image, inode, mode);
            },
        );
    }
    cases.add(
        "a root that is a file",
        Refused(&["its folder cannot be"]),
        |image| {
            put16(image, root, 0o100_644);
        },
    );
    for (flag, what) in [
        (0x1000_0000, "inside of its inode"),
        (0x800, "encrypted"),
        (0x4, "compressed"),
    ] {
        cases.add(
            format!("a file that is {what}"),
            Refused(&["format it as FAT"]),
            |image| {
                let flags = small(get32(image, inode + 32)) | flag;
                put32(image, inode + 32, flags);
            },
        );
    }
    for (bit, what) in [
        (0x4, "not unmounted"),
        (0x10, "scattered"),
        (0x1, "compressed"),
        (0x8000, "inline data"),
        (0x10000, "encrypted"),
        (0x8, "a journal"),
    ] {
        cases.add(
            format!("a volume that is {what}"),
            Refused(&["format it as FAT"]),
            |image| {
                let incompat = small(get32(image, 1024 + 96)) | bit;
                put32(image, 1024 + 96, incompat);
            },
        );
    }
    for (length, what) in [(0, "0"), (3, "3"), (7, "7"), (0xfffc, "65532")] {
        cases.add(
            format!("a slot of {what} bytes"),
            Refused(&["its folder cannot be"]),
            |image| {
                put16(image, slot + 4, length);
            },
        );
    }
    cases.add(
        "a name longer than its slot",
        Refused(&["its folder cannot be", "no medium may hold"]),
        |image| {
            image[slot + 6] = 255;
        },
    );
    for bad in [
        &b"../../a.b"[..],
        b"a/b/c.tom",
        b"\x1b[2Jx.tom",
        b"\xff\xfe\xfd.toml\0",
    ] {
        cases.add(
            format!("the name {}", bad.escape_ascii()),
            Refused(NAMES),
            |image| {
                image[slot + 8..slot + 17].copy_from_slice(bad);
            },
        );
    }
    cases.add("two files of one name", Refused(NAMES), |image| {
        let other = root_block + find(&image[root_block..root_block + 1024], b"other.txt");
        image[other..other + 9].copy_from_slice(b"site.toml");
    });
    for (at, value, what) in [
        (40, 0, "no inodes in a group"),
        (24, 63, "blocks of 2^73 bytes"),
        (24, 7, "blocks of 128 KiB"),
        (88, 0, "inodes of 0 bytes"),
        (88, 0xffff, "inodes of 65535 bytes"),
        (20, 5, "another first block"),
    ] {
        cases.add(what, Stranger, |image| put32(image, 1024 + at, value));
    }
    for table in [0, small(blocks), u32::MAX] {
        cases.add(
            format!("inodes in block {table}"),
            Refused(CHAIN),
            |image| {
                put32(image, 2048 + 8, table);
            },
        );
    }
    cases.add(
        "more blocks than bytes",
        Refused(&["is cut off"]),
        |image| {
            put32(image, 1024 + 4, small(blocks) * 2);
        },
    );
    let map = inode + 40;
    if has_extents {
        ext_extents(&mut cases, map, inode, blocks);
    } else {
        ext_map(&mut cases, map, inode, blocks);
    }
    Some(())
}

fn ext_extents(cases: &mut Cases<'_>, map: usize, inode: usize, blocks: usize) {
    let small = |value: usize| u32::try_from(value).expect("small");
    cases.add("no header of the tree", Refused(CHAIN), |image| {
        put16(image, map, 0);
    });
    cases.add("more extents than fit", Refused(CHAIN), |image| {
        put16(image, map + 2, 0xffff);
    });
    cases.add("a tree of six levels", Refused(CHAIN), |image| {
        put16(image, map + 6, 6);
    });
    cases.add("an extent of no blocks", Refused(CHAIN), |image| {
        put16(image, map + 12 + 4, 0);
    });
    for start in [0, small(blocks), u32::MAX] {
        cases.add(format!("an extent at {start}"), Refused(CHAIN), |image| {
            put32(image, map + 12 + 8, start);
        });
    }
    cases.add("an extent beyond the end", Refused(CHAIN), |image| {
        put32(image, map + 12 + 8, small(blocks) - 1);
        put16(image, map + 12 + 4, 2);
    });
    cases.add("extents that go backwards", Refused(CHAIN), |image| {
        put32(image, inode + 4, 200_000);
        put16(image, map + 2, 2);
        image.copy_within(map + 12..map + 24, map + 24);
    });
    // A node that names itself as its child, on every level.
    cases.add("a tree that is its own branch", Refused(CHAIN), |image| {
        let block = get32(image, map + 12 + 8);
        put32(image, inode + 4, 200_000);
        put16(image, map + 6, 1);
        put32(image, map + 12 + 4, small(block));
        put16(image, map + 12 + 8, 0);
        let node = block * 1024;
        image.copy_within(map..map + 24, node);
    });
    cases.add("a file that is all hole", Harmless, |image| {
        put16(image, map + 2, 0);
    });
    cases.add("blocks that were never written", Harmless, |image| {
        put16(image, map + 12 + 4, 0x8001);
    });
}

fn ext_map(cases: &mut Cases<'_>, map: usize, inode: usize, blocks: usize) {
    let small = |value: usize| u32::try_from(value).expect("small");
    for start in [1, small(blocks), u32::MAX] {
        cases.add(format!("a first block {start}"), Refused(CHAIN), |image| {
            put32(image, map, start);
        });
        cases.add(
            format!("a table in block {start}"),
            Refused(CHAIN),
            |image| {
                put32(image, inode + 4, 200_000);
                put32(image, map + 4 * 12, start);
            },
        );
    }
    cases.add("a file that is all hole", Harmless, |image| {
        put32(image, map, 0);
    });
}

fn table_cases(all: &mut Vec<Case>) -> Option<()> {
    let base = {
        let mut disk = vec![0; 2 << 20];
        let fat = volume(Format::Fat("12", 1000), "VACONFIG")?;
        disk[512 * 1024..512 * 1024 + fat.len()].copy_from_slice(&fat);
        let entry = 446;
        disk[entry + 4] = 0x0c;
        put32(&mut disk, entry + 8, 1024);
        put32(
            &mut disk,
            entry + 12,
            u32::try_from(fat.len() / 512).expect("small"),
        );
        put16(&mut disk, 510, 0xaa55);
        disk
    };
    assert_eq!(collect(&base).candidates.len(), 1);
    let mut cases = Cases {
        base,
        kind: "MBR",
        all,
    };
    let entry = 446;
    for (at, value, what) in [
        (8, 0, "a partition over the table"),
        (8, 4000, "a partition over the end"),
        (8, u32::MAX, "a partition far beyond the end"),
        (12, 0, "an empty partition"),
        (12, u32::MAX, "a partition of 2 TiB"),
    ] {
        cases.add(what, Stranger, |image| put32(image, entry + at, value));
    }
    for next in [0, 1024, 4095, u32::MAX] {
        cases.add(format!("logical partitions at {next}"), Stranger, |image| {
            image[entry + 4] = 0x05;
            put32(image, entry + 8, next);
        });
    }
    cases.add("logical partitions in a circle", Stranger, |image| {
        image[entry + 4] = 0x05;
        put32(image, entry + 8, 8);
        let link = 8 * 512;
        put16(image, link + 510, 0xaa55);
        image[link + 446 + 16 + 4] = 0x05;
        put32(image, link + 446 + 16 + 8, 1);
        let second = 9 * 512;
        image.copy_within(link..link + 512, second);
    });
    cases.add("an entry that is no entry", Stranger, |image| {
        image[entry] = 0x7f;
    });
    Some(())
}

#[test]
fn hostile_media_are_refused() {
    let mut all = Vec::new();
    let made = fat("12", 1440, "FAT12", &mut all)
        .and_then(|()| fat("16", 16_384, "FAT16", &mut all))
        .and_then(|()| fat("32", 66_000, "FAT32", &mut all))
        .and_then(|()| iso_cases(&mut all))
        .and_then(|()| ext_cases("ext4", "^64bit,^metadata_csum,^flex_bg", &mut all))
        .and_then(|()| ext_cases("ext2", "^resize_inode", &mut all))
        .and_then(|()| table_cases(&mut all));
    if made.is_none() {
        return;
    }
    let mut wrong = Vec::new();
    for case in &all {
        let told = collect(&case.image);
        let reason = told.unreadable.first().map(|found| found.reason.as_str());
        let is_right = match case.expect {
            Refused(reasons) => {
                told.candidates.is_empty()
                    && reason.is_some_and(|reason| reasons.iter().any(|part| reason.contains(part)))
            }
            Stranger => told.candidates.is_empty() && told.unreadable.is_empty(),
            Harmless => true,
        };
        let known = |found: &Candidate| {
            found.files.iter().all(|(name, bytes)| {
                name.starts_with("license/")
                    || bytes == SITE
                    || bytes.iter().all(|byte| *byte == 0)
                    || bytes.is_empty()
            })
        };
        if !is_right || !told.candidates.iter().all(known) {
            let found = told.candidates.iter().map(|found| found.files.keys());
            let found: Vec<_> = found.collect();
            wrong.push(format!("{}: {found:?} {:?}", case.name, told.unreadable));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all.len() >= 120, "{} cases", all.len());
}

#[test]
fn links_and_devices_of_real_file_systems_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("content");
    std::fs::create_dir(&root).expect("folder");
    std::os::unix::fs::symlink("/etc/passwd", root.join("site.toml")).expect("link");
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let (ext, iso) = (folder.path().join("ext.img"), folder.path().join("iso.img"));
    let made = run(
        "mke2fs",
        &[
            "-q",
            "-t",
            "ext4",
            "-L",
            "VACONFIG",
            "-d",
            &text(&root),
            &text(&ext),
            "4M",
        ],
    ) && run(
        "genisoimage",
        &[
            "-quiet",
            "-R",
            "-V",
            "VACONFIG",
            "-o",
            &text(&iso),
            &text(&root),
        ],
    );
    if !made {
        return;
    }
    for image in [ext, iso] {
        let told = collect(&std::fs::read(&image).expect("read"));
        assert!(told.candidates.is_empty(), "{told:?}");
        assert!(
            told.unreadable[0].reason.contains("a symbolic link"),
            "{told:?}"
        );
    }
}
