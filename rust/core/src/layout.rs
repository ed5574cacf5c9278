//! Where the tasks of a workflow stand in its picture: in layers from left to right, each task behind all that it waits for.
//! Decides no colours and measures no text. Invariants: no two tasks overlap, every edge goes to the right, and equal graphs give equal
//! pictures.
//!
//! After Sugiyama, Tagawa and Toda: layers by the longest path, an order within each that crosses few edges, then heights. An edge over
//! several layers has a bend in each of them, so that it goes around what stands there.

use std::collections::HashMap;

use crate::graph::Graph;

/// How often the order is mended from the left and from the right.
const SWEEPS: usize = 12;
/// How often heights are mended.
const SETTLINGS: usize = 8;
/// From so many bends on, edges go straight: of a graph so dense nobody can follow a single one.
const BENDS_MAX: usize = 4_000;
/// A bend counts so much more than a task where heights are weighed: long edges shall be straight.
const BEND_WEIGHT: f64 = 4.0;

/// Width and height of what is drawn for a task, in any unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// From left to right.
    pub width: f64,
    /// From top to bottom.
    pub height: f64,
}

/// A point of the picture; the origin is its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Downwards.
    pub y: f64,
}

/// What is left free, in the same unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gaps {
    /// Between two layers.
    pub layers: f64,
    /// Between what stands in one.
    pub tasks: f64,
}

/// An edge as it is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The task that is waited for.
    pub from: usize,
    /// The task that waits.
    pub to: usize,
    /// From the right side of the one to the left side of the other.
    pub points: Vec<Point>,
}

/// What is drawn for a task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// The upper left corner.
    pub corner: Point,
    /// As wide as the widest of its layer.
    pub size: Size,
}

/// A picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Of each task.
    pub frames: Vec<Frame>,
    /// The edges, by the task that waits and in the order of its dependencies.
    pub lines: Vec<Line>,
    /// Of everything.
    pub size: Size,
}

/// Draws a graph whose tasks have these sizes.
///
/// # Panics
/// If there are not as many sizes as tasks.
pub fn layout(graph: &Graph, sizes: &[Size], gaps: Gaps) -> Layout {
    assert_eq!(sizes.len(), graph.topological().len(), "each task has a size");
    let mut net = Net::new(graph, sizes);
    net.order();
    let heights = net.heights(gaps.tasks);
    net.draw(graph, sizes, &heights, gaps)
}

/// Tasks and bends by layer. The first ones are the tasks, at their own positions.
struct Net {
    layer: Vec<usize>,
    height: Vec<f64>,
    befores: Vec<Vec<usize>>,
    afters: Vec<Vec<usize>>,
    rows: Vec<Vec<usize>>,
    /// The bends of the edges that have some.
    bends: HashMap<(usize, usize), Vec<usize>>,
    tasks: usize,
}

impl Net {
    fn new(graph: &Graph, sizes: &[Size]) -> Self {
        let layer = layers(graph);
        let tasks = sizes.len();
        let mut net = Self {
            height: sizes.iter().map(|size| size.height).collect(),
            befores: vec![Vec::new(); tasks],
            afters: vec![Vec::new(); tasks],
            rows: vec![Vec::new(); layer.iter().max().map_or(0, |last| last + 1)],
            bends: HashMap::new(),
            layer,
            tasks,
        };
        let edges = || {
            graph
                .topological()
                .iter()
                .flat_map(|&to| graph.dependencies(to).iter().map(move |&from| (from, to)))
        };
        let bends: usize = edges().map(|(from, to)| net.layer[to] - net.layer[from] - 1).sum();
        for (from, to) in edges() {
            net.connect(from, to, bends <= BENDS_MAX);
        }
        for &task in graph.topological() {
            net.rows[net.layer[task]].push(task);
        }
        for bend in tasks..net.layer.len() {
            net.rows[net.layer[bend]].push(bend);
        }
        net
    }

    fn connect(&mut self, from: usize, to: usize, bends: bool) {
        let mut last = from;
        if bends && self.layer[to] > self.layer[from] + 1 {
            let mut own = Vec::with_capacity(self.layer[to] - self.layer[from] - 1);
            for layer in self.layer[from] + 1..self.layer[to] {
                let bend = self.layer.len();
                self.layer.push(layer);
                self.height.push(0.0);
                self.befores.push(Vec::new());
                self.afters.push(Vec::new());
                self.join(last, bend);
                own.push(bend);
                last = bend;
            }
            self.bends.insert((from, to), own);
        }
        self.join(last, to);
    }

    fn join(&mut self, from: usize, to: usize) {
        self.afters[from].push(to);
        self.befores[to].push(from);
    }

    /// Orders each layer so that few edges cross: each one by the middle of its neighbours, to the right and back, as long as it helps.
    fn order(&mut self) {
        let mut best = (self.crossings(), self.rows.clone());
        for sweep in 0..SWEEPS {
            if best.0 == 0 {
                break;
            }
            let is_rightwards = sweep % 2 == 0;
            let places = 1..self.rows.len();
            match is_rightwards {
                true => places.for_each(|at| self.sort_row(at, true)),
                false => places.rev().for_each(|at| self.sort_row(at - 1, false)),
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.rows.clone());
            }
        }
        self.rows = best.1;
    }

    fn sort_row(&mut self, at: usize, is_rightwards: bool) {
        let (beside, neighbours) = match is_rightwards {
            true => (at - 1, &self.befores),
            false => (at + 1, &self.afters),
        };
        let place = self.places(beside);
        let row = &self.rows[at];
        let middle = |(here, &one): (usize, &usize)| {
            let found: Vec<usize> =
                neighbours[one].iter().filter_map(|other| place.get(other).copied()).collect();
            let sum: usize = found.iter().sum();
            let middle = if found.is_empty() { here as f64 } else { sum as f64 / found.len() as f64 };
            (middle, here, one)
        };
        let mut sorted: Vec<(f64, usize, usize)> = row.iter().enumerate().map(middle).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.rows[at] = sorted.into_iter().map(|(_, _, one)| one).collect();
    }

    fn places(&self, at: usize) -> HashMap<usize, usize> {
        self.rows[at].iter().enumerate().map(|(place, &one)| (one, place)).collect()
    }

    /// How many edges between neighbouring layers cross.
    fn crossings(&self) -> usize {
        let between = |at: usize| {
            let place = self.places(at + 1);
            let ends = self.rows[at].iter().flat_map(|&one| {
                let mut ends: Vec<usize> =
                    self.afters[one].iter().filter_map(|other| place.get(other).copied()).collect();
                ends.sort_unstable();
                ends
            });
            inversions(&ends.collect::<Vec<_>>(), self.rows[at + 1].len())
        };
        (0..self.rows.len().saturating_sub(1)).map(between).sum()
    }

    /// The middle of each one, from the top. Each wants to stand where its neighbours do, and keeps its distance from the next.
    fn heights(&self, gap: f64) -> Vec<f64> {
        let mut middle = vec![0.0; self.layer.len()];
        for row in &self.rows {
            let mut top = 0.0;
            for &one in row {
                middle[one] = top + self.height[one] / 2.0;
                top += self.height[one] + gap;
            }
        }
        for settling in 0..SETTLINGS {
            let row = |at: usize| if settling % 2 == 0 { at } else { self.rows.len() - 1 - at };
            for at in (0..self.rows.len()).map(row) {
                self.settle(&self.rows[at], &mut middle, gap);
            }
        }
        let top =
            (0..middle.len()).map(|one| middle[one] - self.height[one] / 2.0).fold(f64::INFINITY, f64::min);
        middle.iter_mut().for_each(|height| *height -= top);
        middle
    }

    /// Moves a layer as near as it goes to where its neighbours stand, by least squares, in its order.
    fn settle(&self, row: &[usize], middle: &mut [f64], gap: f64) {
        // What stands too near to the one before it forms a block with that, which stands where it is best for all in it.
        struct Block {
            first: usize,
            wish: f64,
            weight: f64,
        }
        let mut blocks: Vec<Block> = Vec::with_capacity(row.len());
        let mut offsets = Vec::with_capacity(row.len());
        let mut offset = 0.0;
        for (at, &one) in row.iter().enumerate() {
            if let Some(&before) = at.checked_sub(1).and_then(|before| row.get(before)) {
                offset += (self.height[before] + self.height[one]) / 2.0 + gap;
            }
            offsets.push(offset);
            let beside = self.befores[one].iter().chain(&self.afters[one]);
            let (sum, count) =
                beside.fold((0.0, 0.0), |(sum, count), &other| (sum + middle[other], count + 1.0));
            let wish = if count > 0.0 { sum / count } else { middle[one] } - offset;
            let weight = if one < self.tasks { 1.0 } else { BEND_WEIGHT };
            blocks.push(Block { first: at, wish, weight });
            while let [.., before, last] = &blocks[..]
                && before.wish > last.wish
            {
                let weight = before.weight + last.weight;
                let wish = (before.wish * before.weight + last.wish * last.weight) / weight;
                let first = before.first;
                blocks.truncate(blocks.len() - 2);
                blocks.push(Block { first, wish, weight });
            }
        }
        let ends = blocks.iter().skip(1).map(|block| block.first).chain([row.len()]);
        for (block, end) in blocks.iter().zip(ends) {
            (block.first..end).for_each(|at| middle[row[at]] = block.wish + offsets[at]);
        }
    }

    fn draw(&self, graph: &Graph, sizes: &[Size], middle: &[f64], gaps: Gaps) -> Layout {
        let wide = |row: &Vec<usize>| {
            row.iter().filter(|&&one| one < self.tasks).map(|&task| sizes[task].width).fold(0.0, f64::max)
        };
        let widths: Vec<f64> = self.rows.iter().map(wide).collect();
        let mut left = Vec::with_capacity(widths.len());
        let mut x = 0.0;
        for width in &widths {
            left.push(x);
            x += width + gaps.layers;
        }
        let frame = |task: usize| {
            let corner = Point { x: left[self.layer[task]], y: middle[task] - sizes[task].height / 2.0 };
            Frame { corner, size: Size { width: widths[self.layer[task]], height: sizes[task].height } }
        };
        let line = |from: usize, to: usize| {
            let begin = Point { x: left[self.layer[from]] + widths[self.layer[from]], y: middle[from] };
            let end = Point { x: left[self.layer[to]], y: middle[to] };
            let bends = self.bends.get(&(from, to)).into_iter().flatten();
            // Straight through the layer, where a task would stand.
            let through = bends.flat_map(|&bend| {
                let x = left[self.layer[bend]];
                [x, x + widths[self.layer[bend]]].map(|x| Point { x, y: middle[bend] })
            });
            Line { from, to, points: [begin].into_iter().chain(through).chain([end]).collect() }
        };
        let tasks = 0..self.tasks;
        let lines = tasks.clone().flat_map(|to| graph.dependencies(to).iter().map(move |&from| (from, to)));
        let bottom = |one: usize| middle[one] + self.height[one] / 2.0;
        let size = Size {
            width: (x - gaps.layers).max(0.0),
            height: (0..middle.len()).map(bottom).fold(0.0, f64::max),
        };
        Layout {
            frames: tasks.map(frame).collect(),
            lines: lines.map(|(from, to)| line(from, to)).collect(),
            size,
        }
    }
}

/// Each task one layer behind the last that it waits for; what nothing holds back stands next to what waits for it.
fn layers(graph: &Graph) -> Vec<usize> {
    let mut layer = vec![0; graph.topological().len()];
    for &task in graph.topological() {
        layer[task] = graph.dependencies(task).iter().map(|&before| layer[before] + 1).max().unwrap_or(0);
    }
    for &task in graph.topological().iter().rev() {
        let next = graph.dependents(task).iter().map(|&after| layer[after]).min();
        if let Some(next) =
            next.filter(|_| graph.dependencies(task).len() < graph.dependents(task).len().max(1))
        {
            layer[task] = next - 1;
        }
    }
    // Everything may have moved away from the left.
    let first = layer.iter().min().copied().unwrap_or(0);
    layer.iter_mut().for_each(|layer| *layer -= first);
    layer
}

/// How many pairs stand in the wrong order, by a tree of sums.
fn inversions(values: &[usize], bound: usize) -> usize {
    let mut sums = vec![0_usize; bound + 1];
    let mut total = 0;
    for (seen, &value) in values.iter().enumerate() {
        let mut not_above = 0;
        let mut at = value + 1;
        while at > 0 {
            not_above += sums[at];
            at -= at & at.wrapping_neg();
        }
        total += seen - not_above;
        let mut at = value + 1;
        while at <= bound {
            sums[at] += 1;
            at += at & at.wrapping_neg();
        }
    }
    total
}
