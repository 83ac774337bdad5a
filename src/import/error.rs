//! Why a descriptor, or a machine, could not be imported.

use std::io;
use std::path::PathBuf;

use super::finding::{Finding, NetworkState, Refusal, count, remedy, stopped, stopper};
use crate::exec::{ExecError, escape};
use crate::inspect::InspectError;
use crate::machine::MachineError;
use crate::release::ReleaseError;
use crate::report::Stop;
use crate::units::{ByteSize, ExitClass};

/// Why an import, an upgrade or a removal did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The descriptor is wrong.
    #[error("`{}` cannot be imported: {}", path.display(), count(findings.len()))]
    Descriptor {
        /// The file.
        path: PathBuf,
        /// All that is wrong, in the order of the file.
        findings: Vec<Finding>,
    },
    /// Neither the descriptor nor the command line names the guest.
    #[error("the descriptor does not name the guest")]
    NoName,
    /// Not a name for a guest.
    #[error("`{}` is no name for a guest", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// Neither the descriptor nor the command line says how much memory.
    #[error("the descriptor does not say how much memory the guest needs")]
    NoMemory,
    /// `--boot` beyond the list.
    #[error("there is no boot descriptor {index}: the descriptor has {count}")]
    NoSuchBoot {
        /// The one that was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// No boot descriptor that this host could follow.
    #[error("no boot descriptor fits this host; there are: {}", escape(&kinds.join(", ")))]
    NoBoot {
        /// What there is.
        kinds: Vec<String>,
    },
    /// `--disk` of a disk that is not there.
    #[error("there is no disk `{}`; the descriptor has: {}", id.escape_debug(), escape(&known.join(", ")))]
    NoSuchDisk {
        /// As it was given.
        id: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A disk would lose its end.
    #[error("disk `{id}` has {size} and cannot shrink to {wanted}")]
    Shrink {
        /// The disk.
        id: String,
        /// Its size.
        size: ByteSize,
        /// The wish.
        wanted: ByteSize,
    },
    /// A disk has no file, and is none that the host makes.
    #[error("disk `{id}`: there is no file `{}`", path.display())]
    NoFile {
        /// The disk.
        id: String,
        /// The file.
        path: PathBuf,
    },
    /// A path that is not followed.
    #[error("disk `{id}`: `{}` {refusal}", path.display())]
    Path {
        /// The disk, kernel or initrd.
        id: String,
        /// The file.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// A disk that is not a sound image of its format.
    #[error("disk `{id}` (`{}`) is refused", path.display())]
    Image {
        /// The disk.
        id: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: InspectError,
    },
    /// An image of an old format that this room looks at itself.
    #[error("disk `{id}` (`{}`) is no {format} image that stands alone", path.display())]
    OldImage {
        /// The disk.
        id: String,
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
    },
    /// The file is another one.
    #[error("disk `{id}`: `{}` has the {kind} {found} instead of {expected}", path.display())]
    Checksum {
        /// The disk.
        id: String,
        /// The file.
        path: PathBuf,
        /// Which checksum.
        kind: &'static str,
        /// What the descriptor says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The file changed while it was copied.
    #[error("disk `{id}`: `{}` changed while it was read", path.display())]
    Changed {
        /// The disk.
        id: String,
        /// The file.
        path: PathBuf,
    },
    /// The release around the descriptor is not what was signed.
    #[error("the release is not trusted")]
    Release {
        /// Why.
        #[from]
        source: ReleaseError,
    },
    /// The descriptor is not part of the release around it.
    #[error("`{}` is not listed in the MANIFEST beside it", path.display())]
    NotListed {
        /// The descriptor.
        path: PathBuf,
    },
    /// A guest of that name is there.
    #[error("a guest `{}` is there already", name.escape_debug())]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The folder for the guest's files is there, and nobody's guest.
    #[error("`{}` is there already, and belongs to no guest", path.display())]
    FolderTaken {
        /// The folder.
        path: PathBuf,
    },
    /// More disks than a bus takes.
    #[error("{count} disks on {bus}, which takes {most}")]
    BusFull {
        /// The bus.
        bus: &'static str,
        /// How many disks.
        count: usize,
        /// How many it takes.
        most: usize,
    },
    /// A board without that bus.
    #[error("the {board} board has no {bus} bus for disks")]
    NoBus {
        /// The board.
        board: &'static str,
        /// The bus.
        bus: &'static str,
    },
    /// The host has no firmware under which the appliance boots.
    #[error("the guest starts by {wanted}, and this host has only {found}")]
    NoFirmware {
        /// What would do.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// KVM was demanded and does not work.
    #[error("KVM does not work on this host: {}", escape(reason))]
    Kvm {
        /// What QEMU said.
        reason: String,
    },
    /// A network of libvirt.
    #[error("the network `{}` of this host is {}", name.escape_debug(), match state {
        NetworkState::Missing => "not defined",
        NetworkState::Inactive => "not active",
    })]
    Network {
        /// The network.
        name: String,
        /// What is wrong.
        state: NetworkState,
    },
    /// A bridge that is not there.
    #[error("this host has no bridge `{}`", name.escape_debug())]
    Bridge {
        /// The bridge.
        name: String,
    },
    /// A host that is not this one.
    #[error("`{}` is another host, to which disks are not copied", uri.escape_debug())]
    Remote {
        /// The connection.
        uri: String,
    },
    /// No daemon answers.
    #[error("no libvirt answers at `{}`: {}", uri.escape_debug(), escape(words))]
    LibvirtDown {
        /// The connection.
        uri: String,
        /// What virsh said.
        words: String,
    },
    /// The daemon does not talk to this user.
    #[error("libvirt at `{}` refuses this user: {}", uri.escape_debug(), escape(words))]
    LibvirtDenied {
        /// The connection.
        uri: String,
        /// What virsh said.
        words: String,
    },
    /// virsh is not installed.
    #[error("libvirt's `virsh` is not installed")]
    LibvirtMissing,
    /// libvirt would not do something.
    #[error("libvirt cannot {doing} `{}`: {}", name.escape_debug(), escape(words))]
    Libvirt {
        /// What was wanted: define, start, …
        doing: &'static str,
        /// Of which guest.
        name: String,
        /// What virsh said.
        words: String,
    },
    /// A storage pool that is no folder.
    #[error("the storage pool `{}` is no folder", name.escape_debug())]
    Pool {
        /// The pool.
        name: String,
    },
    /// An external program.
    #[error(transparent)]
    Tool(#[from] ExecError),
    /// The guest's folder cannot be made.
    #[error("cannot make the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The storage cannot hold the copies.
    #[error("the copies need {needed}, and `{}` has {left} left", path.display())]
    NoRoom {
        /// The storage.
        path: PathBuf,
        /// What is needed.
        needed: ByteSize,
        /// What there is.
        left: ByteSize,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A clone that shares blocks was demanded.
    #[error("`{}` cannot share blocks with its master", path.display())]
    Reflink {
        /// The copy.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A running guest writes to the disk.
    #[error("disk `{id}`: `{}` is in use by a running guest", path.display())]
    InUse {
        /// The disk.
        id: String,
        /// The file.
        path: PathBuf,
    },
    /// No guest of that name.
    #[error("there is no guest `{}`", name.escape_debug())]
    NoGuest {
        /// The name.
        name: String,
    },
    /// A guest that came by another way.
    #[error("the guest `{}` was not imported by consign", name.escape_debug())]
    NotOurs {
        /// The name.
        name: String,
    },
    /// The guest runs.
    #[error("the guest `{}` is running", name.escape_debug())]
    Running {
        /// The name.
        name: String,
    },
    /// Another process changes the guest.
    #[error("another virt-image works on the guest `{}`: it holds `{}`", name.escape_debug(), lock.display())]
    Busy {
        /// The name.
        name: String,
        /// The file that it has locked.
        lock: PathBuf,
    },
    /// The record of an import cannot be understood.
    #[error("`{}` is no record of an import", path.display())]
    Record {
        /// The file.
        path: PathBuf,
    },
    /// An upgrade to something else.
    #[error("the guest `{}` has no system disk `{id}` to replace", name.escape_debug())]
    OtherAppliance {
        /// The guest.
        name: String,
        /// The disk.
        id: String,
    },
    /// A newer appliance that cannot be started as the guest is.
    #[error("the guest `{}` starts as {kind} on {}, and the descriptor has no boot descriptor of that kind", name.escape_debug(), escape(arch))]
    OtherBoot {
        /// The guest.
        name: String,
        /// `hvm` or `xen`.
        kind: String,
        /// The architecture.
        arch: String,
    },
    /// A host that does not serve this kind of boot descriptor.
    #[error("boot descriptor {index} is for {kind}, which plain QEMU does not run")]
    NotForQemu {
        /// The boot descriptor.
        index: usize,
        /// Its kind.
        kind: String,
    },
    /// The guest's memory was saved to go on with the disks that it had.
    #[error("the guest `{}` is saved: its memory waits to go on with the disks that it has", name.escape_debug())]
    Saved {
        /// The guest.
        name: String,
    },
    /// Somebody stopped it.
    #[error("{}", stopped(*stop, running.as_deref()))]
    Stopped {
        /// How.
        stop: Stop,
        /// The guest that runs all the same: only the wait was left.
        running: Option<String>,
    },
    /// Somebody stopped a removal that had begun.
    #[error("stopped by {} while `{}` was removed", stopper(*stop), name.escape_debug())]
    HalfRemoved {
        /// How.
        stop: Stop,
        /// The guest.
        name: String,
    },
    /// An import that was killed left this.
    #[error("the import of the guest `{}` did not come to its end", name.escape_debug())]
    Unfinished {
        /// The guest.
        name: String,
    },
    /// Running the guest.
    #[error(transparent)]
    Guest(#[from] MachineError),
}

fn is_full(source: &io::Error) -> bool {
    matches!(
        source.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl ImportError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Read { .. } => "import-read",
            Self::Descriptor { .. } => "import-descriptor",
            Self::NoName => "import-no-name",
            Self::Name { .. } => "import-name",
            Self::NoMemory => "import-no-memory",
            Self::NoSuchBoot { .. } => "import-no-such-boot",
            Self::NoBoot { .. } => "import-no-boot",
            Self::NoSuchDisk { .. } => "import-no-such-disk",
            Self::Shrink { .. } => "import-shrink",
            Self::NoFile { .. } => "import-no-file",
            Self::Path { .. } => "import-path",
            Self::Image { source, .. } => source.slug(),
            Self::OldImage { .. } => "import-old-image",
            Self::Checksum { .. } => "import-checksum",
            Self::Changed { .. } => "import-changed",
            Self::Release { source } => source.slug(),
            Self::NotListed { .. } => "import-not-listed",
            Self::NameTaken { .. } => "import-name-taken",
            Self::FolderTaken { .. } => "import-folder-taken",
            Self::BusFull { .. } => "import-bus-full",
            Self::NoBus { .. } => "import-no-bus",
            Self::NoFirmware { .. } => "import-no-firmware",
            Self::Kvm { .. } => "import-kvm-broken",
            Self::Network { .. } => "import-network",
            Self::Bridge { .. } => "import-bridge",
            Self::Remote { .. } => "import-remote",
            Self::LibvirtDown { .. } => "libvirt-down",
            Self::LibvirtDenied { .. } => "libvirt-denied",
            Self::LibvirtMissing => "libvirt-missing",
            Self::Libvirt { .. } => "libvirt-failed",
            Self::Pool { .. } => "import-pool",
            Self::Tool(error) => error.slug(),
            Self::NoRoom { .. } => "import-storage-full",
            Self::Folder { source, .. } | Self::Write { source, .. } if is_full(source) => {
                "import-storage-full"
            }
            Self::Folder { .. } => "import-folder",
            Self::Write { .. } => "import-write",
            Self::Reflink { .. } => "import-reflink",
            Self::InUse { .. } => "import-disk-in-use",
            Self::NoGuest { .. } => "import-no-guest",
            Self::NotOurs { .. } => "import-not-ours",
            Self::Running { .. } => "import-guest-running",
            Self::Busy { .. } => "import-busy",
            Self::Record { .. } => "import-record",
            Self::OtherAppliance { .. } => "import-other-appliance",
            Self::OtherBoot { .. } => "import-other-boot",
            Self::NotForQemu { .. } => "import-not-for-qemu",
            Self::Saved { .. } => "import-guest-saved",
            Self::Stopped { .. } | Self::HalfRemoved { .. } => "interrupted",
            Self::Unfinished { .. } => "import-unfinished",
            Self::Guest(error) => error.slug(),
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Descriptor { findings, .. } => return Some(remedy(findings)),
            Self::NoName | Self::Name { .. } => {
                "name it: `--name NAME`, of letters, digits, `_`, `.` and `-`"
            }
            Self::NoMemory => "say it: `--memory MIB`",
            Self::NoBoot { .. } => "choose one anyway with `--boot N`, counted from 0",
            Self::NoSuchBoot { .. } => "name one of them, counted from 0",
            Self::NoSuchDisk { .. } => "name one of those",
            Self::Shrink { .. } => "name a larger size",
            Self::NoFile { .. } => "keep the whole folder together, as it was handed over",
            Self::Path { refusal, .. } => match refusal {
                Refusal::NotAFile => "put the file itself there",
                _ => "if you trust the descriptor, allow it: `--trust-paths`",
            },
            Self::Image { source, .. } => return source.hint(),
            Self::OldImage { .. } => "convert it with `qemu-img convert -O qcow2`",
            Self::Checksum { .. } | Self::Changed { .. } => {
                "fetch the files again; nothing was imported"
            }
            Self::Release { source } => return source.hint(),
            Self::NotListed { .. } => "import the descriptor that the release names",
            Self::NameTaken { .. } => "choose another with `--name`, or replace it: `--replace`",
            Self::FolderTaken { .. } => "choose another name or `--storage`, or move it away",
            Self::BusFull { .. } | Self::NoBus { .. } => {
                "choose another: `--bus virtio`, `--machine pc`"
            }
            Self::NoFirmware { found, .. } if found == "UEFI" => {
                "if the disk boots under UEFI, say so: `--firmware uefi`; else install the package \
                 seabios"
            }
            Self::NoFirmware { .. } => "install the package ovmf, or choose `--firmware bios`",
            Self::Kvm { .. } => "emulate the processor, slowly: `--virt-type qemu`",
            Self::Network { name, state } => {
                return Some(match state {
                    NetworkState::Missing => {
                        "name one of `virsh net-list --all` with `--network NAME`, or take \
                         `--network user`"
                            .into()
                    }
                    NetworkState::Inactive => {
                        format!("start it: `virsh net-start {name}`; or take `--network user`")
                    }
                });
            }
            Self::Bridge { .. } => "name one of `ip link show type bridge`",
            Self::Remote { .. } => "run the import on that host",
            Self::LibvirtDown { .. } => {
                "start it: `systemctl start libvirtd` (or virtqemud); or run the guest without \
                 libvirt: `--connect none`"
            }
            Self::LibvirtDenied { .. } => {
                "join the group libvirt and log in again, or use `--connect qemu:///session`"
            }
            Self::LibvirtMissing => {
                "install it: apt-get install libvirt-clients libvirt-daemon-system; or run the \
                 guest without libvirt: `--connect none`"
            }
            Self::Libvirt { .. } => {
                "libvirt's log may say more: `journalctl -u libvirtd -u virtqemud`"
            }
            Self::Pool { .. } => "name a folder: `--storage FOLDER`",
            Self::Tool(error) => return error.hint(),
            Self::NoRoom { .. } => "make room, or choose another place: `--storage FOLDER`",
            Self::Folder { source, .. } | Self::Write { source, .. } if is_full(source) => {
                "make room, or choose another place: `--storage FOLDER`"
            }
            Self::Folder { .. } => "choose a folder that you may write to: `--storage FOLDER`",
            Self::Reflink { .. } => {
                "copy in full (`--clone full`), or keep both on one btrfs or xfs"
            }
            Self::InUse { .. } => "shut that guest down first",
            Self::NoGuest { .. } => "see `virsh list --all`, or name its `--storage`",
            Self::NotOurs { .. } => "remove it with the tool that made it",
            Self::Running { .. } => {
                "shut it down first; `--force` cuts its power and may lose data"
            }
            Self::Saved { .. } => {
                "start it and shut it down; `--force` drops what was saved, as if its power were cut"
            }
            Self::Stopped {
                running: Some(_), ..
            } => "look at its console, or remove it: `virt-image remove NAME --force`",
            Self::HalfRemoved { .. } => "remove it again",
            Self::Busy { .. } => "wait for it, and try again; where none runs, remove that file",
            Self::Unfinished { .. } => {
                "import it again with `--replace`, or remove it: `virt-image remove NAME`"
            }
            Self::Record { .. } => "remove the folder by hand",
            Self::OtherAppliance { .. } | Self::OtherBoot { .. } => "import it under another name",
            Self::NotForQemu { .. } => "choose another with `--boot N`",
            Self::Guest(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Image { source, .. } => source.class(),
            Self::Release { source } => source.class(),
            Self::Checksum { .. } | Self::Changed { .. } | Self::NotListed { .. } => {
                ExitClass::Verification
            }
            Self::NoRoom { .. }
            | Self::Folder { .. }
            | Self::Write { .. }
            | Self::Reflink { .. } => ExitClass::Build,
            Self::LibvirtDown { .. }
            | Self::LibvirtDenied { .. }
            | Self::LibvirtMissing
            | Self::Libvirt { .. }
            | Self::NoFirmware { .. }
            | Self::Network { .. }
            | Self::Bridge { .. }
            | Self::Kvm { .. } => ExitClass::Tool,
            Self::Stopped { stop, .. } | Self::HalfRemoved { stop, .. } => match stop {
                Stop::Interrupted => ExitClass::Interrupted,
                Stop::Terminated => ExitClass::Terminated,
            },
            Self::Tool(error) => error.class(),
            Self::Guest(error) => error.class(),
            _ => ExitClass::Usage,
        }
    }

    /// The descriptor and all that is wrong in it, where that is the matter.
    #[must_use]
    pub fn findings(&self) -> Option<(String, &[Finding])> {
        match self {
            Self::Descriptor { path, findings } => Some((path.display().to_string(), findings)),
            _ => None,
        }
    }
}
