//! Checks a workflow's edges and answers questions about their order. Knows nothing of what tasks do.
//! Invariant: a `Graph` that exists has no cycle, no missing task and no two tasks with one id.

mod parting;
mod text;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::error::{Error, Kind, Result, excerpt};
use crate::graph::parting::Pasts;
use crate::near::hint;

pub use parting::Places;
pub use text::undone;

/// The edges of a workflow, by the positions of its tasks.
#[derive(Debug, Clone)]
pub struct Graph {
    dependencies: Vec<Vec<usize>>,
    dependents: Vec<Vec<usize>>,
    topological: Vec<usize>,
    roots: Vec<usize>,
    leaves: Vec<usize>,
    /// Where each task stands in topological order.
    place: Vec<usize>,
    pasts: Pasts,
}

impl Graph {
    /// The graph of tasks with these ids and dependencies.
    ///
    /// # Errors
    /// [`Kind::Workflow`] for no tasks, two with one id, a dependency that is none of them, or a cycle, which is spelled out.
    pub fn check(workflow: &str, ids: &[Arc<str>], dependencies: &[Vec<Arc<str>>]) -> Result<Self> {
        if ids.is_empty() {
            let text = format!("workflow '{}' cannot be empty: add at least one task", excerpt(workflow));
            return Err(Error::new(Kind::Workflow, text));
        }
        let positions = positions(workflow, ids)?;
        let dependencies = resolve(workflow, ids, dependencies, &positions)?;
        let mut dependents = vec![Vec::new(); ids.len()];
        for (task, befores) in dependencies.iter().enumerate() {
            for &before in befores {
                dependents[before].push(task);
            }
        }
        let topological = sort(&dependencies, &dependents);
        if topological.len() < ids.len() {
            let cycle = cycle(&dependencies, &topological);
            let names: Vec<&str> = cycle.iter().map(|&task| &*ids[task]).collect();
            let text = format!("workflow '{}' has a cycle: {}", excerpt(workflow), names.join(" -> "));
            return Err(Error::new(Kind::Workflow, text));
        }
        let mut place = vec![0; ids.len()];
        for (at, &task) in topological.iter().enumerate() {
            place[task] = at;
        }
        let without = |edges: &[Vec<usize>]| -> Vec<usize> {
            (0..ids.len()).filter(|&task| edges[task].is_empty()).collect()
        };
        let (roots, leaves) = (without(&dependencies), without(&dependents));
        let pasts = Pasts::new(ids.len());
        Ok(Self { dependencies, dependents, topological, roots, leaves, place, pasts })
    }

    /// What must be final before this task is decided, in the order declared.
    pub fn dependencies(&self, task: usize) -> &[usize] {
        &self.dependencies[task]
    }

    /// What waits for this task.
    pub fn dependents(&self, task: usize) -> &[usize] {
        &self.dependents[task]
    }

    /// All tasks, each after its dependencies; by declaration where that leaves a choice.
    pub fn topological(&self) -> &[usize] {
        &self.topological
    }

    /// Tasks that may run side by side, level after level.
    pub fn levels(&self) -> Vec<Vec<usize>> {
        let mut level = vec![0; self.len()];
        for &task in &self.topological {
            level[task] = self.dependencies[task].iter().map(|&before| level[before] + 1).max().unwrap_or(0);
        }
        let mut levels = vec![Vec::new(); level.iter().max().map_or(0, |deepest| deepest + 1)];
        for (task, &depth) in level.iter().enumerate() {
            levels[depth].push(task);
        }
        levels
    }

    /// Tasks that depend on nothing.
    pub fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// Tasks that nothing depends on.
    pub fn leaves(&self) -> &[usize] {
        &self.leaves
    }

    /// How many tasks there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a graph is never empty")]
    pub fn len(&self) -> usize {
        self.dependencies.len()
    }

    /// Everything that a task depends on, directly or not.
    pub fn ancestors(&self, task: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut ahead = self.dependencies[task].clone();
        while let Some(next) = ahead.pop() {
            if found.insert(next) {
                ahead.extend(&self.dependencies[next]);
            }
        }
        found
    }
}

fn positions<'a>(workflow: &str, ids: &'a [Arc<str>]) -> Result<HashMap<&'a str, usize>> {
    let mut positions = HashMap::with_capacity(ids.len());
    for (position, id) in ids.iter().enumerate() {
        if positions.insert(&**id, position).is_some() {
            let text =
                format!("workflow '{}' has two tasks with the id '{}'", excerpt(workflow), excerpt(id));
            return Err(Error::new(Kind::Workflow, text));
        }
    }
    Ok(positions)
}

fn resolve(
    workflow: &str,
    ids: &[Arc<str>],
    dependencies: &[Vec<Arc<str>>],
    positions: &HashMap<&str, usize>,
) -> Result<Vec<Vec<usize>>> {
    let mut resolved = Vec::with_capacity(ids.len());
    for (id, names) in ids.iter().zip(dependencies) {
        let mut befores = Vec::with_capacity(names.len());
        for name in names {
            let Some(&before) = positions.get(&**name) else {
                let text = format!(
                    "workflow '{}': task '{}' depends on '{}', which is not in it{}",
                    excerpt(workflow),
                    excerpt(id),
                    excerpt(name),
                    hint(name, "tasks", ids)
                );
                return Err(Error::new(Kind::Workflow, text));
            };
            if !befores.contains(&before) {
                befores.push(before);
            }
        }
        resolved.push(befores);
    }
    Ok(resolved)
}

/// Kahn's algorithm with the smallest position first (Kahn 1962, "Topological sorting of large networks").
fn sort(dependencies: &[Vec<usize>], dependents: &[Vec<usize>]) -> Vec<usize> {
    let mut missing: Vec<usize> = dependencies.iter().map(Vec::len).collect();
    let mut ready: BTreeSet<usize> = (0..missing.len()).filter(|&task| missing[task] == 0).collect();
    let mut order = Vec::with_capacity(missing.len());
    while let Some(task) = ready.pop_first() {
        order.push(task);
        for &next in &dependents[task] {
            missing[next] -= 1;
            if missing[next] == 0 {
                ready.insert(next);
            }
        }
    }
    order
}

/// One cycle among the tasks that could not be sorted, its first task repeated at the end.
fn cycle(dependencies: &[Vec<usize>], sorted: &[usize]) -> Vec<usize> {
    let sorted: BTreeSet<usize> = sorted.iter().copied().collect();
    let is_stuck = |task: &usize| !sorted.contains(task);
    let mut path = vec![(0..dependencies.len()).find(is_stuck).expect("a cycle leaves tasks unsorted")];
    loop {
        let last = path[path.len() - 1];
        let before =
            *dependencies[last].iter().find(|&task| is_stuck(task)).expect("a stuck task waits for one");
        let seen = path.iter().position(|&task| task == before);
        path.push(before);
        if let Some(start) = seen {
            let mut cycle = path.split_off(start);
            cycle.reverse();
            return cycle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(tasks: &[(&str, &[&str])]) -> Result<Graph> {
        let ids: Vec<Arc<str>> = tasks.iter().map(|(id, _)| Arc::from(*id)).collect();
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let dependencies: Vec<Vec<Arc<str>>> = tasks.iter().map(|(_, befores)| names(befores)).collect();
        Graph::check("w", &ids, &dependencies)
    }

    #[test]
    fn a_diamond_has_three_levels() {
        let graph = graph(&[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])]).unwrap();
        assert_eq!(graph.levels(), [vec![0], vec![1, 2], vec![3]]);
        assert_eq!(graph.topological(), [0, 1, 2, 3]);
        assert_eq!((graph.roots(), graph.leaves()), (&[0][..], &[3][..]));
        assert_eq!(graph.ancestors(3), BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn a_cycle_is_spelled_out() {
        let error = graph(&[("a", &["b"]), ("b", &["a"])]).unwrap_err();
        assert!(error.message.contains("a -> b -> a"), "{error}");
    }

    #[test]
    fn a_missing_dependency_names_both_tasks() {
        let error = graph(&[("a", &["ghost"])]).unwrap_err();
        assert!(error.message.contains("'a'") && error.message.contains("'ghost'"), "{error}");
    }

    #[test]
    fn no_tasks_and_two_of_one_id_are_refused() {
        assert!(graph(&[]).unwrap_err().message.contains("cannot be empty"));
        assert!(graph(&[("a", &[]), ("a", &[])]).unwrap_err().message.contains("two tasks"));
    }
}
