//! Why there is no answer, told by names.

use std::fmt;

/// Packages that do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// Two packages that both have to come exclude each other.
    Conflict {
        /// The one that was chosen later.
        package: Chosen,
        /// The one that was there.
        with: Chosen,
        /// The field that says so: `a Breaks: b (<< 2)`.
        rule: String,
    },
    /// A dependency with no alternative left.
    NoAlternative {
        /// Who depends.
        package: Chosen,
        /// The dependency as written.
        relation: String,
        /// What stands in the way of each alternative.
        obstacles: Vec<Obstacle>,
    },
    /// Several things that cannot hold together, whatever is chosen.
    Together {
        /// From what is wanted downwards.
        steps: Vec<Step>,
    },
    /// A wanted package is excluded by the same request.
    Excluded {
        /// The package.
        package: String,
        /// Who wants it.
        layer: String,
    },
    /// The search took too long.
    TooHard {
        /// Combinations that were tried.
        tries: usize,
        /// The first thing that did not fit.
        first: Box<Failure>,
    },
}

/// A package, and why it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// From the package upwards: each one needed by the next.
    pub needed_by: Vec<String>,
    /// What the last one of them is there for: a layer, or the base.
    pub root: Root,
}

/// What a chain of dependencies begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Root {
    /// A layer asks for it.
    Layer(String),
    /// It is essential.
    Essential,
}

/// One of several things that cannot hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// It has to come.
    Wanted {
        /// The package.
        package: String,
        /// Who asks for it; `None`: it is essential.
        layer: Option<String>,
    },
    /// It depends on something.
    Needs {
        /// The package.
        package: String,
        /// The dependency as written.
        relation: String,
        /// What stands in the way, if nothing can satisfy it at all.
        obstacles: Vec<Obstacle>,
    },
    /// It does not bear another.
    Excludes {
        /// The package.
        package: String,
        /// The other one.
        with: String,
        /// The field that says so.
        rule: String,
    },
    /// Two versions of it would be needed.
    OneVersion {
        /// The package.
        package: String,
    },
}

/// What stands in the way of one alternative of a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// No source has it.
    Absent {
        /// The alternative as written.
        relation: String,
        /// The versions that there are, if the version is what does not fit.
        versions: Vec<String>,
    },
    /// The pins of the request leave no version of it.
    Limited {
        /// The package.
        package: String,
    },
    /// The request excludes it.
    Excluded {
        /// The package.
        package: String,
    },
    /// It does not go together with a package that has to come.
    Conflicts {
        /// The package.
        package: String,
        /// That other one.
        with: Chosen,
        /// The field that says so.
        rule: String,
    },
    /// It needs something itself that cannot be had.
    Unusable {
        /// The package.
        package: String,
        /// Its dependency.
        relation: String,
    },
}

/// How many packages or obstacles a message names.
const SHOWN: usize = 4;

impl Failure {
    /// What the reader can do about it.
    #[must_use]
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Conflict { .. } => {
                "leave one of the two out of the layers, or exclude what brings it".into()
            }
            Self::NoAlternative { obstacles, .. } => {
                if obstacles
                    .iter()
                    .any(|it| matches!(it, Obstacle::Excluded { .. }))
                {
                    "take it off the exclude list, or exclude what depends on it".into()
                } else if obstacles
                    .iter()
                    .any(|it| matches!(it, Obstacle::Limited { .. }))
                {
                    "widen the [[pin]] of the package in appliance.toml".into()
                } else if obstacles
                    .iter()
                    .all(|it| matches!(it, Obstacle::Absent { .. }))
                {
                    "add the source that has it, or leave out what depends on it".into()
                } else {
                    "leave out one of the packages that exclude each other".into()
                }
            }
            Self::Together { .. } => {
                "leave out one of the packages that are asked for, or pin another version".into()
            }
            Self::Excluded { package, .. } => {
                format!("take `{package}` off the exclude list, or out of the layer")
            }
            Self::TooHard { first, .. } => first.hint(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict {
                package,
                with,
                rule,
            } => write!(
                f,
                "`{}` and `{}` exclude each other ({rule}); {package}; {with}",
                package.name, with.name
            ),
            Self::NoAlternative {
                package,
                relation,
                obstacles,
            } => {
                write!(f, "`{}` depends on `{relation}`, but ", package.name)?;
                write_list(f, obstacles)?;
                write!(f, "; {package}")
            }
            Self::Together { steps } => {
                for (at, step) in steps.iter().enumerate() {
                    write!(f, "{}{step}", if at == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Excluded { package, layer } => {
                write!(f, "layer `{layer}` asks for `{package}`, which is excluded")
            }
            Self::TooHard { tries, first } => {
                write!(f, "{first} (and none of {tries} other combinations fits)")
            }
        }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {} is ", self.name, self.version)?;
        let root = |f: &mut fmt::Formatter<'_>| match &self.root {
            Root::Layer(layer) => write!(f, "asked for by layer `{layer}`"),
            Root::Essential => f.write_str("essential"),
        };
        let Some((first, rest)) = self.needed_by.split_first() else {
            return root(f);
        };
        write!(f, "needed by `{first}`")?;
        for name in rest {
            write!(f, ", needed by `{name}`")?;
        }
        f.write_str(", which is ")?;
        root(f)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted {
                package,
                layer: Some(layer),
            } => write!(f, "layer `{layer}` asks for `{package}`"),
            Self::Wanted {
                package,
                layer: None,
            } => write!(f, "`{package}` is essential"),
            Self::Needs {
                package,
                relation,
                obstacles,
            } => {
                write!(f, "`{package}` needs `{relation}`")?;
                if obstacles.is_empty() {
                    return Ok(());
                }
                f.write_str(", but ")?;
                write_list(f, obstacles)
            }
            Self::Excludes {
                package,
                with,
                rule,
            } => write!(f, "`{package}` and `{with}` exclude each other ({rule})"),
            Self::OneVersion { package } => {
                write!(f, "`{package}` can be there in one version only")
            }
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { relation, versions } => match versions.as_slice() {
                [] => write!(f, "no source has `{relation}`"),
                [only] => write!(f, "`{relation}` is not met by version {only}, the only one"),
                several => write!(
                    f,
                    "`{relation}` is not met by any of the versions {}",
                    several.join(", ")
                ),
            },
            Self::Limited { package } => {
                write!(f, "the [[pin]] of `{package}` fits none of its versions")
            }
            Self::Excluded { package } => write!(f, "`{package}` is excluded"),
            Self::Conflicts {
                package,
                with,
                rule,
            } => {
                write!(
                    f,
                    "`{package}` and `{}` exclude each other ({rule}), and {with}",
                    with.name
                )
            }
            Self::Unusable { package, relation } => {
                write!(f, "`{package}` needs `{relation}`, which cannot be had")
            }
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, obstacles: &[Obstacle]) -> fmt::Result {
    for (at, obstacle) in obstacles.iter().take(SHOWN).enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        write!(f, "{comma}{obstacle}")?;
    }
    if obstacles.len() > SHOWN {
        write!(f, ", and {} more", obstacles.len() - SHOWN)?;
    }
    Ok(())
}

/// What there is instead of an unknown package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suggestion {
    /// Names that look alike, the nearest one first.
    pub near: Vec<String>,
    /// If it is a virtual package: who provides it, sorted.
    pub providers: Vec<String>,
}

impl Suggestion {
    /// What the reader can do about it.
    #[must_use]
    pub(crate) fn hint(&self) -> Option<String> {
        let names = |list: &[String]| {
            let quoted: Vec<_> = list
                .iter()
                .take(SHOWN)
                .map(|name| format!("`{name}`"))
                .collect();
            quoted.join(" or ")
        };
        match (self.providers.as_slice(), self.near.as_slice()) {
            ([], []) => None,
            ([], near) => Some(format!("did you mean {}?", names(near))),
            (providers, _) => Some(format!("ask for {}", names(providers))),
        }
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.providers.split_first() {
            None => f.write_str("no source has"),
            Some((first, rest)) => {
                write!(f, "is only a virtual package, provided by `{first}`")?;
                for name in rest.iter().take(SHOWN - 1) {
                    write!(f, ", `{name}`")?;
                }
                match rest.len().saturating_sub(SHOWN - 1) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}
