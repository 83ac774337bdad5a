//! What can go wrong between a tree and a tree that boots.

use std::io;

use crate::sign::vendor::VendorFault;
use crate::tree::{TreeError, TreePath};
use crate::units::ExitClass;

/// Why a tree cannot be made to boot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// `/boot` has no `vmlinuz-*`.
    #[error("the tree has no kernel: `/boot/vmlinuz-*` is missing")]
    NoKernel,
    /// More than one kernel; the image holds one.
    #[error("the tree has {} kernels ({}), and an image holds one", versions.len(), versions.join(", "))]
    SeveralKernels {
        /// Their versions, sorted.
        versions: Vec<String>,
    },
    /// The kernel's modules are missing.
    #[error("kernel {version} has no modules: `{path}` is missing")]
    NoModules {
        /// Version of the kernel.
        version: String,
        /// The file that was looked for.
        path: TreePath,
    },
    /// A driver without which no root can be mounted.
    #[error("kernel {version} has no `{module}`, neither built in nor as a module")]
    NoDriver {
        /// Version of the kernel.
        version: String,
        /// Name of the module.
        module: &'static str,
    },
    /// `modules.dep` names a file that is not there.
    #[error("module `{module}` needs `{needed}`, which is missing")]
    ModuleMissing {
        /// The module that needs it.
        module: String,
        /// What it needs.
        needed: String,
    },
    /// A file that depmod wrote does not read as one.
    #[error("`{path}` line {line} is not what depmod writes")]
    ModuleIndex {
        /// The file.
        path: TreePath,
        /// Line, counted from 1.
        line: usize,
    },
    /// Modules that need each other.
    #[error("module `{module}` needs itself")]
    ModuleCircle {
        /// One of them.
        module: String,
    },
    /// `/lib`, `/bin` or `/sbin` are directories of their own.
    #[error("`/{path}` is not a link into `/usr`")]
    NotMerged {
        /// The directory.
        path: &'static str,
    },
    /// A file that every root needs.
    #[error("the tree has no `/{path}`")]
    Missing {
        /// The file.
        path: &'static str,
    },
    /// A file of the tools layer.
    #[error("the boot tools have no `{path}`")]
    NoTool {
        /// The file.
        path: TreePath,
    },
    /// A field of GRUB's boot image is not what this GRUB has.
    #[error("`{image}` has {found:#x} at {offset:#x}, but a known GRUB has {expected:#x}")]
    UnknownGrub {
        /// `boot.img` or `core.img`.
        image: &'static str,
        /// Offset of the field in bytes.
        offset: usize,
        /// What is known.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// One of GRUB's images has an impossible length.
    #[error("`{image}` has {size} bytes; it may have {least} to {most}")]
    GrubSize {
        /// `boot.img` or `core.img`.
        image: &'static str,
        /// Its length.
        size: u64,
        /// The shortest possible.
        least: u64,
        /// The longest possible.
        most: u64,
    },
    /// A kernel parameter that would not arrive as one.
    #[error("kernel parameter `{}` has {problem}", parameter.escape_default())]
    Parameter {
        /// As it was given.
        parameter: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The initramfs does not fit its limit.
    #[error("the initramfs has {size} bytes; at most {most} are allowed")]
    InitramfsSize {
        /// Its length.
        size: u64,
        /// The limit.
        most: u64,
    },
    /// A file of the vendor's for the agent breaks the agent's rules.
    #[error("`{path}` is wrong:\n{}", problems.join("\n"))]
    VendorFile {
        /// The file.
        path: TreePath,
        /// What is wrong, in lines for people.
        problems: Vec<String>,
    },
    /// A file of the vendor's that the agent would refuse for its signature.
    #[error("the appliance would refuse `{path}`")]
    VendorSignature {
        /// The file.
        path: TreePath,
        /// What its signature is for.
        purpose: &'static str,
        /// Why.
        source: VendorFault,
    },
    /// A role lies in a folder of another name.
    #[error("role `{role}` is described by `{path}`, not by a file in a folder of its own name")]
    RoleFolder {
        /// The file.
        path: TreePath,
        /// The role.
        role: String,
    },
    /// A role names a template that is not there.
    #[error("role `{role}` has no template `{template}`")]
    NoTemplate {
        /// The role.
        role: String,
        /// File name of the template.
        template: String,
    },
    /// A template that cannot be filled in, whatever the configuration says.
    #[error("the template `{template}` of role `{role}` cannot be filled in: {reason}")]
    Template {
        /// The role.
        role: String,
        /// File name of the template.
        template: String,
        /// What is wrong, as a clause.
        reason: String,
    },
    /// A role names a hook that cannot run.
    #[error("a role has the hook `{path}`, and the tree has {needs}")]
    NoHook {
        /// The file.
        path: TreePath,
        /// What is missing, as a clause without its subject.
        needs: &'static str,
    },
    /// A role names a unit that is not there.
    #[error("role `{role}` starts `{unit}`, which is no unit of the tree")]
    NoRoleUnit {
        /// The role.
        role: String,
        /// Name of the unit.
        unit: String,
    },
    /// A change does not fit the tree.
    #[error("cannot change the tree")]
    Tree(#[from] TreeError),
    /// A stored file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Its path in the tree.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
    /// The compressor failed.
    #[error("cannot compress the initramfs")]
    Compress {
        /// Why.
        source: io::Error,
    },
}

impl BootError {
    /// A stable name of the kind of error, kebab-case.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::NoKernel => "boot-no-kernel",
            Self::SeveralKernels { .. } => "boot-several-kernels",
            Self::NoModules { .. } => "boot-no-modules",
            Self::NoDriver { .. } => "boot-no-driver",
            Self::ModuleMissing { .. } => "boot-module-missing",
            Self::ModuleIndex { .. } => "boot-module-index",
            Self::ModuleCircle { .. } => "boot-module-circle",
            Self::NotMerged { .. } => "boot-not-merged",
            Self::Missing { .. } => "boot-missing",
            Self::NoTool { .. } => "boot-no-tool",
            Self::UnknownGrub { .. } => "boot-unknown-grub",
            Self::GrubSize { .. } => "boot-grub-size",
            Self::Parameter { .. } => "boot-parameter",
            Self::InitramfsSize { .. } => "boot-initramfs-size",
            Self::VendorFile { .. } => "boot-vendor-file",
            Self::VendorSignature { .. } => "boot-vendor-signature",
            Self::RoleFolder { .. } => "boot-role-folder",
            Self::NoTemplate { .. } => "boot-no-template",
            Self::Template { .. } => "boot-template",
            Self::NoHook { .. } => "boot-no-hook",
            Self::NoRoleUnit { .. } => "boot-no-role-unit",
            Self::Tree(_) => "boot-tree",
            Self::Read { .. } => "boot-read",
            Self::Compress { .. } => "boot-compress",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoKernel => "add `linux-image-amd64` to the packages of the first layer",
            Self::SeveralKernels { .. } => "keep one kernel package in the layers",
            Self::NoModules { .. } => {
                "take kernel and modules from the same package, and leave depmod's files in place"
            }
            Self::NoDriver { .. } => {
                "use Debian's `linux-image-amd64` or `linux-image-cloud-amd64`"
            }
            Self::ModuleMissing { .. } | Self::ModuleIndex { .. } | Self::ModuleCircle { .. } => {
                "run depmod in the layer that changes the modules"
            }
            Self::NotMerged { .. } => "install `usr-is-merged` in the first layer",
            Self::Missing { path } if path.starts_with("usr/sbin/init") => {
                "add `systemd-sysv` to the packages of the first layer"
            }
            Self::NoTool { .. } | Self::UnknownGrub { .. } | Self::GrubSize { .. } => {
                "build with the GRUB and shim packages of Debian 12"
            }
            Self::Missing { path } if path.ends_with("systemd-networkd") => {
                "add `systemd` to the packages of the first layer"
            }
            Self::RoleFolder { .. } => "name the folder below `/usr/lib/consign/roles` as the role",
            Self::VendorSignature {
                path,
                purpose,
                source,
            } => return Some(signature_hint(path, purpose, source)),
            Self::NoTemplate { .. } => "put the template beside `role.toml`",
            Self::Template { .. } => {
                "mend the template; what `role.toml` has in [param] is `app.NAME` there"
            }
            Self::NoHook { .. } => {
                "put the file beside `role.toml` (mode 0755 for a program), and puppet into a layer where it is asked for"
            }
            Self::NoRoleUnit { .. } => "add the package or file that brings the unit to a layer",
            Self::Parameter { .. } => "write one parameter without spaces for each entry",
            _ => return None,
        };
        Some(hint.into())
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Parameter { .. } => ExitClass::Usage,
            _ => ExitClass::Build,
        }
    }
}

fn signature_hint(path: &TreePath, purpose: &str, fault: &VendorFault) -> String {
    match fault {
        VendorFault::NotAKey { .. } | VendorFault::NoKey => {
            "put the public key into `usr/lib/consign/vendor.pub` of a layer, one a line".into()
        }
        _ => format!(
            "sign the layer's file again: `ssh-keygen -Y sign -n {purpose} -f KEY {}`",
            path.name().map(String::from_utf8_lossy).unwrap_or_default()
        ),
    }
}
