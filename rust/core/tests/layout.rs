//! Pictures of workflows: whatever the graph, nothing overlaps and everything goes to the right.

use std::sync::Arc;

use proptest::prelude::*;

use cloaca_core::graph::Graph;
use cloaca_core::layout::{Gaps, Layout, Line, Point, Size, layout};

const GAPS: Gaps = Gaps { layers: 40.0, tasks: 10.0 };

fn graph(dependencies: &[Vec<usize>]) -> Graph {
    let id = |task: usize| -> Arc<str> { format!("t{task}").into() };
    let ids: Vec<_> = (0..dependencies.len()).map(id).collect();
    let named: Vec<Vec<_>> =
        dependencies.iter().map(|befores| befores.iter().map(|&before| id(before)).collect()).collect();
    Graph::check("w", &ids, &named).expect("each task waits for earlier ones")
}

fn picture(dependencies: &[Vec<usize>], sizes: &[Size]) -> Layout {
    layout(&graph(dependencies), sizes, GAPS)
}

fn alike(dependencies: &[Vec<usize>]) -> Layout {
    picture(dependencies, &vec![Size { width: 100.0, height: 20.0 }; dependencies.len()])
}

fn corners(layout: &Layout) -> Vec<(f64, f64)> {
    layout.frames.iter().map(|frame| (frame.corner.x, frame.corner.y.round())).collect()
}

fn crossings(layout: &Layout) -> usize {
    let ends = |line: &Line| (line.points[0].y, line.points[line.points.len() - 1].y);
    let cross = |a: &Line, b: &Line| {
        let (a, b) = (ends(a), ends(b));
        (a.0 - b.0) * (a.1 - b.1) < 0.0
    };
    let lines = &layout.lines;
    (0..lines.len()).map(|at| lines[at + 1..].iter().filter(|line| cross(&lines[at], line)).count()).sum()
}

#[test]
fn a_diamond_is_even_on_both_sides() {
    let layout = alike(&[vec![], vec![0], vec![0], vec![1, 2]]);
    assert_eq!(corners(&layout), [(0.0, 15.0), (140.0, 0.0), (140.0, 30.0), (280.0, 15.0)]);
    assert_eq!((layout.size.width, layout.size.height.round()), (380.0, 50.0));
}

#[test]
fn a_chain_is_a_straight_line() {
    let layout = alike(&[vec![], vec![0], vec![1], vec![2]]);
    assert!(corners(&layout).iter().all(|&(_, y)| y == 0.0));
}

#[test]
fn a_long_edge_goes_around_what_stands_between() {
    let layout = alike(&[vec![], vec![0], vec![1, 0]]);
    let long = layout.lines.iter().find(|line| (line.from, line.to) == (0, 2)).unwrap();
    let between = &layout.frames[1];
    let (top, bottom) = (between.corner.y, between.corner.y + between.size.height);
    assert_eq!(long.points.len(), 4);
    assert!(long.points[1..3].iter().all(|point| point.y < top || point.y > bottom), "{layout:?}");
}

#[test]
fn what_waits_for_nothing_stands_next_to_what_waits_for_it() {
    // 3 is needed by 2 alone, which is far to the right.
    let layout = alike(&[vec![], vec![0], vec![1, 3], vec![]]);
    assert_eq!(layout.frames[3].corner.x, layout.frames[1].corner.x);
}

#[test]
fn an_order_without_crossings_is_found_where_there_is_one() {
    // Pairs, whose second halves are declared the other way round.
    let layout = alike(&[vec![], vec![], vec![], vec![2], vec![1], vec![0]]);
    assert_eq!(crossings(&layout), 0);
}

#[test]
fn tasks_of_one_layer_are_equally_wide() {
    let sizes = [30.0, 90.0, 50.0].map(|width| Size { width, height: 20.0 });
    let layout = picture(&[vec![], vec![0], vec![0]], &sizes);
    assert_eq!(layout.frames.iter().map(|frame| frame.size.width).collect::<Vec<_>>(), [30.0, 90.0, 90.0]);
}

#[test]
fn a_graph_of_every_edge_is_drawn_too() {
    let dependencies: Vec<Vec<usize>> = (0..200).map(|task| (0..task).collect()).collect();
    let layout = alike(&dependencies);
    assert_eq!((layout.frames.len(), layout.lines.len()), (200, 199 * 200 / 2));
}

fn graphs() -> impl Strategy<Value = (Vec<Vec<usize>>, Vec<Size>)> {
    (1..40_usize).prop_flat_map(|tasks| {
        let befores = move |task: usize| proptest::collection::btree_set(0..task.max(1), 0..task.min(4) + 1);
        let dependencies: Vec<_> = (0..tasks)
            .map(|task| {
                befores(task).prop_map(move |set| set.into_iter().filter(|&before| before < task).collect())
            })
            .collect();
        let sizes = proptest::collection::vec((10.0..200.0_f64, 10.0..60.0_f64), tasks);
        let sizes =
            sizes.prop_map(|sizes| sizes.iter().map(|&(width, height)| Size { width, height }).collect());
        (dependencies, sizes)
    })
}

proptest! {
    #[test]
    fn nothing_overlaps_and_every_edge_goes_to_the_right((dependencies, sizes) in graphs()) {
        let layout = picture(&dependencies, &sizes);
        let near = 1e-6;
        for (task, frame) in layout.frames.iter().enumerate() {
            prop_assert!(frame.corner.x >= 0.0 && frame.corner.y >= -near);
            prop_assert!(frame.corner.x + frame.size.width <= layout.size.width + near);
            prop_assert!(frame.corner.y + frame.size.height <= layout.size.height + near);
            prop_assert!(frame.size.width >= sizes[task].width && frame.size.height == sizes[task].height);
            for other in &layout.frames[..task] {
                let beside = frame.corner.x + frame.size.width + GAPS.layers <= other.corner.x + near
                    || other.corner.x + other.size.width + GAPS.layers <= frame.corner.x + near;
                let above = frame.corner.y + frame.size.height + GAPS.tasks <= other.corner.y + near
                    || other.corner.y + other.size.height + GAPS.tasks <= frame.corner.y + near;
                prop_assert!(beside || above, "{frame:?} {other:?}");
            }
        }
        let drawn: Vec<(usize, usize)> = layout.lines.iter().map(|line| (line.from, line.to)).collect();
        let asked: Vec<(usize, usize)> = (0..dependencies.len())
            .flat_map(|to| dependencies[to].iter().map(move |&from| (from, to)))
            .collect();
        prop_assert_eq!(drawn, asked);
        for line in &layout.lines {
            let (from, to) = (&layout.frames[line.from], &layout.frames[line.to]);
            let begin = Point { x: from.corner.x + from.size.width, y: from.corner.y + from.size.height / 2.0 };
            prop_assert!(line.points.windows(2).all(|pair| pair[0].x <= pair[1].x));
            prop_assert!((line.points[0].x - begin.x).abs() < near && (line.points[0].y - begin.y).abs() < near);
            prop_assert!(line.points[line.points.len() - 1].x == to.corner.x);
        }
        prop_assert_eq!(&layout, &picture(&dependencies, &sizes));
    }
}
