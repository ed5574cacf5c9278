//! What bodies logged, on its way to the store.

use std::sync::Arc;

use uuid::Uuid;

use crate::time::Wall;

/// What a line costs beside its texts, about.
const LINE_BYTES: usize = 48;

/// One line that a body logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The task's id in its workflow; none of a callback of the run.
    pub task: Option<Arc<str>>,
    /// Which attempt of it.
    pub attempt: Option<u32>,
    /// Which callback of the task, or of the run, if it was one.
    pub callback: Option<Arc<str>>,
    /// When it was logged.
    pub at: Wall,
    /// How grave it is, as Python numbers that.
    pub level: i64,
    /// The logger's name.
    pub logger: String,
    /// The message.
    pub text: String,
    /// What was raised, with its traceback.
    pub error: Option<String>,
}

impl Line {
    /// How much it counts of what a run may have.
    pub fn bytes(&self) -> usize {
        let task = self.task.as_deref().map_or(0, str::len);
        let error = self.error.as_deref().map_or(0, str::len);
        LINE_BYTES + task + self.logger.len() + self.text.len() + error
    }
}

/// What bodies of one run logged since the last of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The run; if it is not kept, nothing of this is.
    pub run: Uuid,
    /// The lines, in the order in which they came.
    pub lines: Vec<Line>,
    /// So many were left out: the store took nothing for too long, or a body far away logged too much.
    pub left_out: u64,
    /// So many bytes of a run are kept at most, the newest lines.
    pub bytes_max: u64,
}

impl Logged {
    /// How much its lines count.
    pub fn bytes(&self) -> usize {
        self.lines.iter().map(Line::bytes).sum()
    }
}
