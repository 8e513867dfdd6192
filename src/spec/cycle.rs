//! Finds apps that wait for each other.

use std::collections::{BTreeMap, BTreeSet};

/// The first loop in a graph, each member with the mark of its edge to the next; the same graph
/// gives the same loop.
pub fn find<'a, N: Ord, M: Copy>(edges: &BTreeMap<&'a N, BTreeMap<&'a N, M>>) -> Option<Vec<(&'a N, M)>> {
    let mut done = BTreeSet::new();
    for start in edges.keys().copied() {
        let mut trail: Vec<(&N, M)> = Vec::new();
        if let Some(found) = walk(start, edges, &mut trail, &mut done) {
            return Some(found);
        }
    }
    None
}

fn walk<'a, N: Ord, M: Copy>(
    node: &'a N,
    edges: &BTreeMap<&'a N, BTreeMap<&'a N, M>>,
    trail: &mut Vec<(&'a N, M)>,
    done: &mut BTreeSet<&'a N>,
) -> Option<Vec<(&'a N, M)>> {
    if let Some(at) = trail.iter().position(|(seen, _)| *seen == node) {
        return Some(trail[at..].to_vec());
    }
    if !done.insert(node) {
        return None;
    }
    for (&next, mark) in edges.get(node).into_iter().flatten() {
        trail.push((node, *mark));
        if let Some(found) = walk(next, edges, trail, done) {
            return Some(found);
        }
        trail.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_named_and_a_diamond_is_none() {
        let graph = |pairs: &'static [(&'static str, &'static str)]| {
            let mut edges: BTreeMap<&&str, BTreeMap<&&str, ()>> = BTreeMap::new();
            for (from, to) in pairs {
                edges.entry(from).or_default().insert(to, ());
            }
            find(&edges).map(|found| found.into_iter().map(|(name, ())| *name).collect::<Vec<_>>())
        };
        assert_eq!(graph(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]), None);
        assert_eq!(graph(&[("a", "b"), ("b", "c"), ("c", "b")]), Some(vec!["b", "c"]));
        assert_eq!(graph(&[("a", "a")]), Some(vec!["a"]));
    }
}
