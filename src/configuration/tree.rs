//! What an archive has had so far, as a tree: what a path is, and what it may become.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use crate::MAX_ENTRIES;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Directory,
    File,
    /// A symbolic link.
    Link(PathBuf),
}

/// Nodes by their number and their parent's, since that needs little memory also for
/// the longest paths; 0 is the root.
pub(crate) struct Tree {
    numbers: HashMap<(usize, OsString), usize>,
    nodes: Vec<Node>,
    /// The links that go down and up again: whether these stay inside depends on what
    /// comes after them.
    winding: Vec<PathBuf>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { numbers: HashMap::new(), nodes: vec![Node::Directory], winding: Vec::new() }
    }

    /// Puts `node` at `path`, in the place of what was there, and gives the parents that
    /// were missing, the outermost first.
    ///
    /// # Errors
    /// Why that can't be.
    pub(crate) fn insert(&mut self, path: &Path, node: Node) -> Result<Vec<PathBuf>, String> {
        let mut missing = Vec::new();
        let mut parent = 0;
        let mut names = path.iter().peekable();
        let mut at = PathBuf::new();
        while let Some(name) = names.next() {
            at.push(name);
            let is_last = names.peek().is_none();
            let Some(number) = self.number(parent, name) else {
                if self.nodes.len() > MAX_ENTRIES {
                    return Err(format!("the archive has more than {MAX_ENTRIES} entries"));
                }
                let number = self.nodes.len();
                self.numbers.insert((parent, name.to_owned()), number);
                self.nodes.push(Node::Directory);
                if is_last {
                    self.set(path, number, node);
                    break;
                }
                missing.push(at.clone());
                parent = number;
                continue;
            };
            match (&self.nodes[number], is_last) {
                (Node::Directory, false) => parent = number,
                (Node::File, false) => return Err(format!("`{}` is a file", at.display())),
                (Node::Link(_), false) => {
                    return Err(format!("`{}` is a symbolic link", at.display()));
                }
                (before, true) if (*before == Node::Directory) != (node == Node::Directory) => {
                    return Err("it is a directory and something else".to_owned());
                }
                (_, true) => {
                    self.set(path, number, node);
                    break;
                }
            }
        }
        Ok(missing)
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Node> {
        let mut number = 0;
        for name in path {
            number = self.number(number, name)?;
        }
        Some(&self.nodes[number])
    }

    /// A link that leads out, because it goes up from where another link leads.
    pub(crate) fn misleading_link(&self) -> Option<&Path> {
        self.winding.iter().map(PathBuf::as_path).find(|link| self.goes_up_from_a_link(link))
    }

    fn goes_up_from_a_link(&self, link: &Path) -> bool {
        // It may have been replaced.
        let Some(Node::Link(target)) = self.get(link) else { return false };
        // What stands on the way from the root to where the target has led so far, if anything.
        let mut way = vec![Some(0)];
        let enter = |way: &mut Vec<Option<usize>>, name| {
            let parent = way.last().copied().flatten();
            way.push(parent.and_then(|parent| self.number(parent, name)));
        };
        link.parent().into_iter().flatten().for_each(|name| enter(&mut way, name));
        let mut is_elsewhere = false;
        for component in target.components() {
            match component {
                Component::Normal(name) => {
                    enter(&mut way, name);
                    let at = way.last().copied().flatten().map(|number| &self.nodes[number]);
                    is_elsewhere |= matches!(at, Some(Node::Link(_)));
                }
                Component::ParentDir if is_elsewhere => return true,
                Component::ParentDir => drop(way.pop()),
                _ => {}
            }
        }
        false
    }

    fn set(&mut self, path: &Path, number: usize, node: Node) {
        if let Node::Link(target) = &node
            && goes_down_and_up(target)
        {
            self.winding.push(path.to_owned());
        }
        self.nodes[number] = node;
    }

    fn number(&self, parent: usize, name: &OsStr) -> Option<usize> {
        self.numbers.get(&(parent, name.to_owned())).copied()
    }
}

fn goes_down_and_up(target: &Path) -> bool {
    let mut components = target.components();
    components.any(|component| matches!(component, Component::Normal(_)))
        && components.any(|component| component == Component::ParentDir)
}
