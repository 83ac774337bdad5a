//! The names of a guest's disks: of the files on the host, and of the devices
//! in the guest.

use std::collections::BTreeSet;

use super::error::ImportError;
use super::plan::PlannedDisk;
use super::wishes::{Board, Bus};

/// A file name made of a disk's name, used by no other disk.
pub(super) fn file_name(id: &str, extension: &str, names: &mut BTreeSet<String>) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut stem: String = id
        .chars()
        .map(|c| if is_safe(c) { c } else { '_' })
        .take(100)
        .collect();
    if let Some(short) = stem.strip_suffix(&format!(".{extension}")) {
        stem = short.to_owned();
    }
    let stem = stem.trim_start_matches('.');
    let mut name = format!("{stem}.{extension}");
    let mut count = 1;
    while stem.is_empty() || !names.insert(name.clone()) {
        count += 1;
        name = format!("{stem}-{count}.{extension}");
        if stem.is_empty() && names.insert(name.clone()) {
            break;
        }
    }
    name
}

/// Gives each disk a bus and a device name: a wished name where it is one of
/// that bus, else the first that is free.
pub(super) fn name_devices(
    disks: &mut [PlannedDisk],
    wished: &[Option<String>],
    board: Board,
    bus: Bus,
) -> Result<(), ImportError> {
    for disk in disks.iter_mut() {
        disk.bus = match (disk.is_cd, bus, board) {
            (true, Bus::Virtio, Board::Q35) => Bus::Sata,
            (true, Bus::Virtio, Board::Pc) => Bus::Ide,
            (_, bus, _) => bus,
        };
    }
    let mut taken = BTreeSet::new();
    for (disk, wish) in disks.iter_mut().zip(wished) {
        let rest = wish
            .as_deref()
            .and_then(|wish| wish.strip_prefix(disk.bus.prefix()));
        let is_letter = |rest: &str| matches!(rest.as_bytes(), [b'a'..=b'x']);
        if let (Some(wish), Some(rest)) = (wish, rest)
            && is_letter(rest)
            && taken.insert(wish.clone())
        {
            disk.target.clone_from(wish);
        }
    }
    for disk in disks.iter_mut().filter(|disk| disk.target.is_empty()) {
        let mut free = (b'a'..=b'x')
            .map(|letter| format!("{}{}", disk.bus.prefix(), char::from(letter)))
            .filter(|name| !taken.contains(name));
        disk.target = free.next().unwrap_or_default();
        taken.insert(disk.target.clone());
    }
    for bus in [Bus::Ide, Bus::Sata, Bus::Virtio, Bus::Scsi, Bus::Xen] {
        let count = disks.iter().filter(|disk| disk.bus == bus).count();
        let last = |disk: &PlannedDisk| {
            let letter = disk.target.bytes().next_back().unwrap_or(b'a');
            usize::from(letter.saturating_sub(b'a')) + 1
        };
        let highest = disks.iter().filter(|disk| disk.bus == bus).map(last).max();
        let count = count.max(highest.unwrap_or(0));
        if count > bus.most() {
            return Err(ImportError::BusFull {
                bus: bus.name(),
                count,
                most: bus.most(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::descriptor::Usage;
    use crate::import::plan::Make;
    use crate::units::ByteSize;

    fn disk(id: &str, is_cd: bool) -> PlannedDisk {
        PlannedDisk {
            id: id.into(),
            usage: Usage::User,
            target: String::new(),
            bus: Bus::Virtio,
            is_cd,
            path: id.into(),
            format: "raw",
            size: ByteSize::from_mib(1),
            grows: false,
            is_asked: false,
            recipe: None,
            make: Make::Blank,
        }
    }

    fn targets(count: usize, wished: &[Option<&str>], board: Board, bus: Bus) -> Vec<String> {
        let mut disks: Vec<_> = (0..count).map(|n| disk(&n.to_string(), n == 2)).collect();
        let mut wished: Vec<_> = wished.iter().map(|wish| wish.map(str::to_owned)).collect();
        wished.resize(count, None);
        name_devices(&mut disks, &wished, board, bus).expect("room");
        disks.into_iter().map(|disk| disk.target).collect()
    }

    #[test]
    fn wished_device_names_count_where_they_fit_the_bus() {
        let wished = [Some("hda"), Some("hdd"), None];
        assert_eq!(
            targets(3, &wished, Board::Pc, Bus::Ide),
            ["hda", "hdd", "hdb"]
        );
        assert_eq!(
            targets(3, &wished, Board::Q35, Bus::Virtio),
            ["vda", "vdb", "sda"]
        );
        assert_eq!(
            targets(3, &wished, Board::Pc, Bus::Virtio),
            ["vda", "vdb", "hda"]
        );
        let twice = [Some("hdb"), Some("hdb")];
        assert_eq!(targets(2, &twice, Board::Pc, Bus::Ide), ["hdb", "hda"]);
    }

    #[test]
    fn five_disks_are_too_many_for_ide() {
        let mut disks: Vec<_> = (0..5).map(|n| disk(&n.to_string(), false)).collect();
        let wished = vec![None; 5];
        let error = name_devices(&mut disks, &wished, Board::Pc, Bus::Ide).expect_err("full");
        assert_eq!(error.to_string(), "5 disks on ide, which takes 4");
    }

    #[test]
    fn file_names_are_safe_and_differ() {
        let mut names = BTreeSet::new();
        let mut name = |id| file_name(id, "raw", &mut names);
        assert_eq!(name("a.raw"), "a.raw");
        assert_eq!(name("a"), "a-2.raw");
        assert_eq!(name("../../x y"), "_.._x_y.raw");
        assert_eq!(name(".raw"), "-2.raw");
    }
}
