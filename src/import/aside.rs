//! Where a guest stands aside while it is replaced, and what becomes of it
//! there when the replacement is killed.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ImportError;
use super::plan::CONFIG;
use super::store::{Record, RecordDisk};
use crate::exec::escape;
use crate::report::Reporter;
use crate::tree::list_folder;

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), ImportError> {
    fs::rename(from, to).map_err(|source| ImportError::Write {
        path: to.to_owned(),
        source,
    })
}

/// Where a guest's files are while it is replaced.
pub(super) fn aside_of(folder: &Path, name: &str) -> PathBuf {
    folder.with_file_name(format!(".{name}.consign-old"))
}

/// A replacement that was killed left the guest before it aside: it comes
/// back first. When the one in its place, in the folder `new`, is whole, what
/// is left aside goes, as it was about to: the user's disks are in the new one.
/// What has a disk of the user's, or belongs to another, is not touched. `off`
/// is asked before files go that the guest may run on by now.
pub(super) fn bring_back(
    folder: &Path,
    new: &Path,
    name: &str,
    off: &dyn Fn() -> Result<(), ImportError>,
    reporter: &dyn Reporter,
) -> Result<(), ImportError> {
    let aside = aside_of(folder, name);
    if !aside.exists() {
        return Ok(());
    }
    let old = Record::open(&aside)?;
    let made = Record::open(new)?.filter(|made| made.name == name);
    match (old, made) {
        (Some(old), Some(made)) if old.name == name && !made.is_whole => {
            off()?;
            put_back(&made, new, &aside, folder)
        }
        (Some(old), None) if old.name == name && !folder.exists() => rename(&aside, folder),
        (Some(old), Some(_)) if old.name == name && !has_user_disk(&old, &aside) => {
            old.remove_files(&aside)?;
            move_along(&aside, new, reporter);
            Ok(())
        }
        (Some(_), _) => Err(ImportError::FolderTaken { path: aside }),
        // No guest, but what somebody else put beside one.
        (None, Some(made)) if made.is_whole => {
            move_along(&aside, new, reporter);
            Ok(())
        }
        (None, _) => {
            drop(fs::remove_dir(&aside));
            say_what_stays(&aside, reporter);
            Ok(())
        }
    }
}

/// Whether the guest that is aside has a disk of the user's still.
fn has_user_disk(old: &Record, aside: &Path) -> bool {
    let is_there = |disk: &RecordDisk| {
        disk.usage == "user" && disk.id != CONFIG && aside.join(&disk.file).exists()
    };
    old.disks.iter().any(is_there)
}

/// Moves what was in the old guest's folder, and is not of it, into the new
/// one's; says where what cannot go there is.
pub(super) fn move_along(aside: &Path, new: &Path, reporter: &dyn Reporter) {
    for entry in list_folder(aside).unwrap_or_default() {
        let to = new.join(&entry.name);
        if to.symlink_metadata().is_err() {
            // What does not move is said below.
            drop(fs::rename(&entry.path, to));
        }
    }
    drop(fs::remove_dir(aside));
    say_what_stays(aside, reporter);
}

/// Says that a folder has files that are no guest's, if there are any.
pub(super) fn say_what_stays(folder: &Path, reporter: &dyn Reporter) {
    if folder.exists() {
        let folder = folder.display().to_string();
        reporter.warn(
            format!(
                "`{}` has files that are not the guest's; they stay",
                escape(&folder)
            ),
            Some("move them away, or remove them"),
        );
    }
}

/// Puts the guest that is aside back in its folder, in the place of the
/// unfinished one in `new`; the user's disks that were there by then with it.
pub(super) fn put_back(
    unfinished: &Record,
    new: &Path,
    aside: &Path,
    folder: &Path,
) -> Result<(), ImportError> {
    let old = Record::open(aside)?;
    for disk in old.iter().flat_map(|record| &record.disks) {
        let (from, to) = (new.join(&disk.file), aside.join(&disk.file));
        let is_new = unfinished.disks.iter().any(|new| new.file == disk.file);
        if !is_new && from.exists() && !to.exists() {
            rename(&from, &to)?;
        }
    }
    unfinished.remove_files(new)?;
    if folder.exists() {
        return Err(ImportError::FolderTaken {
            path: aside.to_owned(),
        });
    }
    rename(aside, folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Recorder, Silent};

    fn disk(file: &str, format: &str) -> RecordDisk {
        RecordDisk {
            id: "system".into(),
            usage: "system".into(),
            file: file.into(),
            format: format.into(),
            master: None,
            checksum: None,
            is_overlay: false,
        }
    }

    fn record(disks: Vec<RecordDisk>, is_whole: bool) -> Record {
        Record {
            consign_import: 1,
            is_whole,
            name: "x".into(),
            version: None,
            descriptor: "/appliance.xml".into(),
            descriptor_sha256: String::new(),
            connect: None,
            disks,
            files: Vec::new(),
            boot: None,
            qemu: Vec::new(),
        }
    }

    #[test]
    fn the_users_disks_come_back_with_the_guest_that_was_aside() {
        let storage = tempfile::tempdir().expect("a folder");
        let folder = storage.path().join("x");
        let aside = aside_of(&folder, "x");
        let put = |folder: &Path, name: &str, text: &str| {
            fs::write(folder.join(name), text).expect("written");
        };
        let disks = vec![disk("system.raw", "raw"), disk("data.raw", "raw")];
        for path in [&folder, &aside] {
            fs::create_dir(path).expect("a folder");
        }
        record(disks.clone(), true).save(&aside).expect("a record");
        put(&aside, "system.raw", "old");
        // It was killed after the user's disk had moved.
        let unfinished = record(disks[..1].to_vec(), false);
        unfinished.save(&folder).expect("a record");
        put(&folder, "system.raw", "new");
        put(&folder, "data.raw", "the user's");
        bring_back(&folder, &folder, "x", &|| Ok(()), &Silent).expect("it comes back");
        let text = |name: &str| fs::read_to_string(folder.join(name)).expect("a file");
        assert_eq!(text("system.raw"), "old");
        assert_eq!(text("data.raw"), "the user's");
        assert!(!aside.exists());
        assert!(Record::open(&folder).expect("read").expect("one").is_whole);
    }

    #[test]
    fn what_is_left_of_a_guest_that_was_replaced_goes_unless_it_has_the_users_disk() {
        let storage = tempfile::tempdir().expect("a folder");
        let folder = storage.path().join("x");
        let aside = aside_of(&folder, "x");
        for path in [&folder, &aside] {
            fs::create_dir(path).expect("a folder");
            let disks = ["system", "data"].map(|id| RecordDisk {
                id: id.into(),
                usage: if id == "data" { "user" } else { "system" }.into(),
                ..disk(&format!("{id}.raw"), "raw")
            });
            record(disks.into(), true).save(path).expect("a record");
        }
        fs::write(aside.join("system.raw"), "old").expect("written");
        fs::write(aside.join("data.raw"), "the user's").expect("written");
        let error = bring_back(&folder, &folder, "x", &|| Ok(()), &Silent)
            .expect_err("a disk of the user's");
        assert_eq!(error.slug(), "import-folder-taken");
        assert!(aside.join("system.raw").exists() && aside.join("data.raw").exists());
        fs::rename(aside.join("data.raw"), folder.join("data.raw")).expect("renamed");
        bring_back(&folder, &folder, "x", &|| Ok(()), &Silent).expect("nothing in the way");
        assert!(!aside.exists() && folder.join("data.raw").exists());
    }

    #[test]
    fn what_cannot_be_put_back_stays_where_it_is() {
        let storage = tempfile::tempdir().expect("a folder");
        let folder = storage.path().join("x");
        let aside = aside_of(&folder, "x");
        for path in [&folder, &aside] {
            fs::create_dir(path).expect("a folder");
        }
        let unfinished = record(vec![disk("system.raw", "raw")], false);
        fs::write(folder.join("other"), "somebody's").expect("written");
        let error = put_back(&unfinished, &folder, &aside, &folder).expect_err("in the way");
        assert_eq!(error.slug(), "import-folder-taken");
        assert!(folder.join("other").exists() && aside.exists());
    }

    #[test]
    fn a_guest_that_runs_on_half_made_files_keeps_them() {
        let storage = tempfile::tempdir().expect("a folder");
        let folder = storage.path().join("x");
        let aside = aside_of(&folder, "x");
        for (path, is_whole) in [(&folder, false), (&aside, true)] {
            fs::create_dir(path).expect("a folder");
            let disks = vec![disk("system.raw", "raw")];
            record(disks, is_whole).save(path).expect("a record");
            fs::write(path.join("system.raw"), "a disk").expect("written");
        }
        let runs = || {
            let name = "x".into();
            Err(ImportError::Running { name })
        };
        let error = bring_back(&folder, &folder, "x", &runs, &Silent).expect_err("it runs");
        assert_eq!(error.slug(), "import-guest-running");
        assert!(folder.join("system.raw").exists() && aside.join("system.raw").exists());
        // Nor does another guest that is aside take its place.
        let other = Record {
            name: "y".into(),
            ..record(Vec::new(), true)
        };
        other.save(&aside).expect("a record");
        let error = bring_back(&folder, &folder, "x", &|| Ok(()), &Silent);
        assert_eq!(error.expect_err("another's").slug(), "import-folder-taken");
        assert!(folder.join("system.raw").exists() && aside.join("system.raw").exists());
    }

    #[test]
    fn a_file_of_nobodys_stops_nothing() {
        let storage = tempfile::tempdir().expect("a folder");
        let folder = storage.path().join("x");
        let aside = aside_of(&folder, "x");
        let write = |path: PathBuf, text: &str| fs::write(path, text).expect("written");
        fs::create_dir(&aside).expect("a folder");
        for name in ["notes.txt", "other.txt"] {
            write(aside.join(name), "old");
        }
        // Beside no guest it stays, and is spoken of.
        let said = Recorder::default();
        let go = |said: &Recorder| bring_back(&folder, &folder, "x", &|| Ok(()), said);
        go(&said).expect("nothing in the way");
        assert!(format!("{:?}", said.events()).contains(".x.consign-old"));
        assert!(!folder.exists() && aside.join("notes.txt").exists());
        // Beside a whole one it joins it, unless the name is taken.
        fs::create_dir(&folder).expect("a folder");
        record(Vec::new(), true).save(&folder).expect("a record");
        write(folder.join("other.txt"), "new");
        go(&said).expect("nothing in the way");
        let text = |path: PathBuf| fs::read_to_string(path).expect("a file");
        assert_eq!(text(folder.join("notes.txt")), "old");
        assert_eq!(text(folder.join("other.txt")), "new");
        assert_eq!(text(aside.join("other.txt")), "old");
        assert_eq!(said.events().len(), 2);
        fs::remove_file(aside.join("other.txt")).expect("removed");
        go(&said).expect("nothing in the way");
        assert!(!aside.exists());
        assert_eq!(said.events().len(), 2);
    }
}
