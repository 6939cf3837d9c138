//! Read buffers, lent to connections only while bytes are on their way: an idle connection holds none.

use std::cell::RefCell;
use std::rc::Rc;

/// Size of a pooled buffer in bytes. Heads may grow a buffer beyond it; such a one is freed, not kept.
pub const BUFFER_BYTES: usize = 16 * 1024;

/// Size in bytes of the buffers that large bodies flow through: fewer system calls, and fewer times that an end is woken.
pub const WIDE_BYTES: usize = 512 * 1024;

/// Wide buffers a worker lends at once, 32 MiB; who comes later makes do with a pooled one. Lent for longer than one turn are
/// those whose receiver is slower than the instance.
const WIDE_MAX: usize = 64;

/// Memory in bytes that an output vector starts with, and above which it is freed instead of kept.
const OUTPUT_BYTES: usize = 4 * 1024;

/// Buffers of each kind a worker keeps for the next borrower, 5 MiB at most beside the wide ones; and for long only what is used.
const KEPT_MAX: usize = 256;

/// A worker's spare buffers.
#[derive(Clone, Debug, Default)]
pub struct BufferPool(Rc<RefCell<Spare>>);

#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    wide: Vec<Vec<u8>>,
    wide_lent: usize,
    outputs: Vec<Vec<u8>>,
}

impl BufferPool {
    fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().buffers.pop().unwrap_or_else(|| vec![0; BUFFER_BYTES])
    }

    fn give(&self, bytes: Vec<u8>) {
        let buffers = &mut self.0.borrow_mut().buffers;
        if bytes.len() == BUFFER_BYTES && buffers.len() < KEPT_MAX {
            buffers.push(bytes);
        }
    }

    fn take_wide(&self) -> Option<Vec<u8>> {
        let spare = &mut *self.0.borrow_mut();
        if spare.wide_lent == WIDE_MAX {
            return None;
        }
        spare.wide_lent += 1;
        Some(spare.wide.pop().unwrap_or_else(|| vec![0; WIDE_BYTES]))
    }

    fn give_wide(&self, bytes: Vec<u8>) {
        let spare = &mut *self.0.borrow_mut();
        spare.wide_lent -= 1;
        if bytes.len() == WIDE_BYTES {
            spare.wide.push(bytes);
        }
    }

    /// Frees half of the spare ones. Done once in a while it leaves nothing of what a crowd has needed, and costs those
    /// who are in use a few allocations.
    pub fn shrink(&self) {
        let Spare { buffers, wide, outputs, .. } = &mut *self.0.borrow_mut();
        for spare in [buffers, wide, outputs] {
            spare.truncate(spare.len() / 2);
        }
    }

    /// An empty vector to write into.
    pub fn take_output(&self) -> Vec<u8> {
        self.0.borrow_mut().outputs.pop().unwrap_or_else(|| Vec::with_capacity(OUTPUT_BYTES))
    }

    /// Takes back what `take_output` gave.
    pub fn give_output(&self, mut output: Vec<u8>) {
        let outputs = &mut self.0.borrow_mut().outputs;
        if (1..=2 * OUTPUT_BYTES).contains(&output.capacity()) && outputs.len() < KEPT_MAX {
            output.clear();
            outputs.push(output);
        }
    }
}

/// Bytes read and not yet consumed. Takes memory from the pool when it is filled and gives it back when it is empty.
#[derive(Debug)]
pub struct Buffer {
    pool: BufferPool,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// A wide buffer is on loan.
    is_wide: bool,
    /// More comes than a pooled buffer has room for.
    overflows: bool,
}

impl Buffer {
    /// Where its memory comes from.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// An empty buffer without memory.
    pub fn new(pool: &BufferPool) -> Buffer {
        Buffer { pool: pool.clone(), bytes: Vec::new(), start: 0, end: 0, is_wide: false, overflows: false }
    }

    /// What is there.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Whether another read would need `grow` or `consume` first.
    pub fn is_full(&self) -> bool {
        self.start == 0 && self.end == self.bytes.len() && !self.bytes.is_empty()
    }

    /// Whether it is filled to its end.
    pub fn is_at_end(&self) -> bool {
        self.end == self.bytes.len()
    }

    /// Room to read into: moves what is there to the front when the end is reached, and takes memory when there is none.
    pub fn room(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = self.pool.take();
        }
        if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// Whether more comes than there was room for.
    pub fn overflows(&self) -> bool {
        self.overflows
    }

    /// Makes more room, if more comes than there was room for and nothing is in it.
    pub fn widen(&mut self) {
        if self.overflows
            && !self.is_wide
            && self.is_empty()
            && let Some(wide) = self.pool.take_wide()
        {
            self.pool.give(std::mem::replace(&mut self.bytes, wide));
            self.is_wide = true;
        }
    }

    /// Counts `count` bytes of the room as filled.
    pub fn fill(&mut self, count: usize) {
        debug_assert!(self.end + count <= self.bytes.len());
        self.end += count;
        self.overflows = self.end == self.bytes.len() || self.overflows && count > BUFFER_BYTES;
    }

    /// Doubles the room, for a head that is larger than a buffer.
    pub fn grow(&mut self) {
        self.bytes.resize((self.bytes.len() * 2).max(BUFFER_BYTES), 0);
    }

    /// Gives the memory back if nothing is in it.
    pub fn release(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if std::mem::take(&mut self.is_wide) { self.pool.give_wide(bytes) } else { self.pool.give(bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.room()[..bytes.len()].copy_from_slice(bytes);
        buffer.fill(bytes.len());
    }

    #[test]
    fn an_empty_buffer_holds_no_memory_and_a_released_one_is_lent_again() {
        let pool = BufferPool::default();
        let mut buffer = Buffer::new(&pool);
        assert!(buffer.bytes.is_empty());
        put(&mut buffer, b"hello");
        buffer.release();
        assert_eq!(buffer.filled(), b"hello");
        buffer.consume(5);
        buffer.release();
        assert!(buffer.bytes.is_empty());
        assert_eq!(pool.0.borrow().buffers.len(), 1);
        drop(buffer);
        assert_eq!(pool.0.borrow().buffers.len(), 1);
    }

    #[test]
    fn what_is_there_moves_to_the_front_when_the_end_is_reached() {
        let pool = BufferPool::default();
        let mut buffer = Buffer::new(&pool);
        put(&mut buffer, &[7; BUFFER_BYTES]);
        assert!(buffer.is_full());
        buffer.consume(BUFFER_BYTES - 3);
        assert_eq!(buffer.room().len(), BUFFER_BYTES - 3);
        assert_eq!(buffer.filled(), [7, 7, 7]);
    }

    fn overflown(pool: &BufferPool) -> Buffer {
        let mut buffer = Buffer::new(pool);
        put(&mut buffer, &[7; BUFFER_BYTES]);
        buffer.consume(BUFFER_BYTES);
        buffer
    }

    #[test]
    fn a_buffer_that_was_read_full_can_be_replaced_by_a_wide_one_while_there_are_some() {
        let pool = BufferPool::default();
        let mut buffers: Vec<Buffer> = (0..=WIDE_MAX).map(|_| overflown(&pool)).collect();
        buffers.iter_mut().for_each(Buffer::widen);
        let widths: Vec<usize> = buffers.iter_mut().map(|buffer| buffer.room().len()).collect();
        assert_eq!(widths[..WIDE_MAX], [WIDE_BYTES; WIDE_MAX]);
        assert_eq!(widths[WIDE_MAX], BUFFER_BYTES);
        buffers[0].release();
        buffers[WIDE_MAX].widen();
        assert_eq!(buffers[WIDE_MAX].room().len(), WIDE_BYTES);
        buffers.clear();
        assert_eq!(pool.0.borrow().wide_lent, 0);
        assert_eq!(pool.0.borrow().wide.len(), WIDE_MAX);
    }

    #[test]
    fn a_buffer_stays_wide_while_more_comes_than_fits_a_pooled_one() {
        let pool = BufferPool::default();
        let mut buffer = overflown(&pool);
        let mut next = |bytes: usize| {
            buffer.release();
            buffer.widen();
            let room = buffer.room().len();
            buffer.fill(bytes);
            buffer.consume(bytes);
            room
        };
        assert_eq!(next(2 * BUFFER_BYTES), WIDE_BYTES);
        assert_eq!(next(BUFFER_BYTES), WIDE_BYTES);
        assert_eq!(next(1), BUFFER_BYTES, "what came last would have fitted");
    }

    #[test]
    fn what_nobody_borrows_is_freed_by_and_by() {
        let pool = BufferPool::default();
        let mut buffers: Vec<Buffer> = (0..KEPT_MAX).map(|_| Buffer::new(&pool)).collect();
        for buffer in &mut buffers {
            put(buffer, &[7; BUFFER_BYTES]);
            buffer.consume(BUFFER_BYTES);
            buffer.widen();
        }
        buffers.clear();
        pool.give_output(Vec::with_capacity(OUTPUT_BYTES));
        let kept = |pool: &BufferPool| {
            let spare = pool.0.borrow();
            [spare.buffers.len(), spare.wide.len(), spare.outputs.len()]
        };
        assert_eq!(kept(&pool), [KEPT_MAX - WIDE_MAX, WIDE_MAX, 1], "who got a wide one has left his to the next");
        pool.shrink();
        assert_eq!(kept(&pool), [(KEPT_MAX - WIDE_MAX) / 2, WIDE_MAX / 2, 0]);
        (0..10).for_each(|_| pool.shrink());
        assert_eq!(kept(&pool), [0, 0, 0]);
    }

    #[test]
    fn a_grown_buffer_is_not_kept() {
        let pool = BufferPool::default();
        let mut buffer = Buffer::new(&pool);
        put(&mut buffer, &[7; BUFFER_BYTES]);
        buffer.grow();
        assert_eq!(buffer.room().len(), BUFFER_BYTES);
        drop(buffer);
        assert!(pool.0.borrow().buffers.is_empty());
    }
}
