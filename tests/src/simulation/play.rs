//! What simulated programs do: which calls, maps and data, with which inputs, and when they let go. Must not know: how anything travels.

use quicsand::{
    Options, Requirements,
    codec::{Args, Hole, RunBuilder, Source, Span},
    ids::{EntryId, Hash, TaskId},
    wire::{CallSpec, ENTRY_COST, FromClient, SharedSpec},
};

use super::{
    client::{Handle, Job, Window, items_of},
    program::{ALWAYS, Nature, encode},
    world::{BAD_MODULE, Due, World},
};

/// What calls ask for; most ask for nothing.
const ASKED: [&str; 5] = ["zone=a", "zone=b", "gpu=1", "gpu=2", "disk=7"];
/// Items of a map, at most.
const MAP_ITEMS: u64 = 24;

impl World {
    /// A client's program goes on.
    pub(super) fn step(&mut self, pid: u32) {
        self.pump(pid);
        let Some(process) = self.clients.get_mut(&pid).filter(|process| process.is_here()) else { return };
        // Whoever waits for credit goes on when it comes.
        if !process.jobs.is_empty() || process.steps_left == 0 {
            return;
        }
        process.steps_left -= 1;
        self.act(pid);
        self.pump(pid);
        if self.clients.get(&pid).is_some_and(|process| process.jobs.is_empty()) {
            self.next_step(pid);
        }
    }

    /// The program goes on after a while.
    fn next_step(&mut self, pid: u32) {
        let pause = if self.rng.chance(100) { self.rng.millis(10, 400) } else { self.rng.micros(0, 5000) };
        self.schedule(self.now + pause, Due::Step(pid));
    }

    /// Credit came: what waits for it is sent, and if that is all of it, the program goes on.
    pub(super) fn go_on(&mut self, pid: u32) {
        let is_blocked = |world: &Self| world.clients.get(&pid).is_some_and(|process| !process.jobs.is_empty());
        let was_blocked = is_blocked(self);
        self.pump(pid);
        if was_blocked && !is_blocked(self) {
            self.next_step(pid);
        }
    }

    fn act(&mut self, pid: u32) {
        match self.rng.below(100) {
            0..=33 => self.submit(pid),
            34..=49 => self.map(pid),
            50..=59 => self.scatter(pid),
            60..=65 => self.open_window(pid),
            66..=79 => self.draw_windows(pid),
            80..=83 => self.cancel_some(pid),
            84..=91 => self.drop_some(pid),
            92..=96 => self.gather_some(pid),
            _ => self.ask_about_all(pid),
        }
    }

    fn spec(&mut self, retries: u32) -> SharedSpec {
        let mut options = Options { retries, priority: self.rng.below(3) as i32 - 1, ..Options::DEFAULT };
        if self.rng.chance(200) {
            let mut requires = Requirements::NONE;
            if let Some((name, value)) = self.rng.of(&ASKED).split_once('=') {
                match value.parse() {
                    Ok(amount) => requires.set_resource(name, amount),
                    Err(_) => requires.set_label(name, value),
                }
            }
            options.requires = requires;
        }
        let name = format!("task {}", self.rng.below(4));
        CallSpec { task: TaskId::of(&name), name, options }.into()
    }

    fn nature(&mut self, module: Hash) -> Nature {
        let nature = Nature::draw(&mut self.rng, self.settings.is_rough);
        if module == BAD_MODULE {
            return Nature { fails: ALWAYS, kind: quicsand::TaskErrorKind::Module, kills: 0, ..nature };
        }
        nature
    }

    fn retries(&mut self) -> u32 {
        if self.settings.is_rough { self.rng.below(4) as u32 } else { 0 }
    }

    /// Arguments of so many items that read earlier entries, as many fields as the numbers will have it.
    fn args(&mut self, pid: u32, count: u32) -> Option<Args> {
        let mut builder = RunBuilder::default();
        for _ in 0..count {
            let number = self.rng.below(u64::MAX) as i64;
            builder.push(&number.to_le_bytes()).ok()?;
        }
        let process = self.clients.get(&pid)?;
        let client = process.member.as_ref()?.0;
        let whole = process.handles.iter().filter(|(_, handle)| handle.is_whole && !handle.is_window && handle.count > 0);
        let earlier: Vec<(u64, u64)> = whole.map(|(&seq, handle)| (seq, handle.count)).collect();
        let mut holes = Vec::new();
        let fields = if earlier.is_empty() { 0 } else { self.rng.below(4).saturating_sub(self.rng.below(2)) };
        for field in 0..fields as u32 {
            // The latest more often than others: chains.
            let back = self.rng.below(earlier.len() as u64);
            let at = earlier.len() - 1 - self.rng.below(back + 1) as usize;
            let (seq, len) = earlier[at];
            let entry = EntryId { client, seq };
            let some = |rng: &mut super::rng::Rng| {
                let first = rng.below(len);
                Span { entry, first, count: 1 + rng.below((len - first).min(6)) }
            };
            let first = if count > 1 && self.rng.chance(300) { self.rng.below(count.into()) as u32 } else { 0 };
            let of_items = count - first;
            let source = match self.rng.below(3) {
                0 if u64::from(of_items) <= len && count > 1 => {
                    Source::Each { entry, first: self.rng.below(len - u64::from(of_items) + 1) }
                }
                1 => {
                    let mut spans = vec![some(&mut self.rng)];
                    if self.rng.chance(300) {
                        let (seq, len) = earlier[self.rng.below(earlier.len() as u64) as usize];
                        spans.push(Span { entry: EntryId { client, seq }, first: 0, count: len.min(4) });
                    }
                    Source::List(spans)
                }
                _ => Source::Same(entry.key(self.rng.below(len))),
            };
            holes.push(Hole { first, count: of_items, field, source });
        }
        holes.sort_by_key(|hole| (hole.first, hole.field));
        Some(Args { run: builder.take(), holes })
    }

    fn submit(&mut self, pid: u32) {
        let retries = self.retries();
        let (spec, Some(args)) = (self.spec(retries), self.args(pid, 1)) else { return };
        let module = self.module_of(pid);
        let item = items_of(&args, retries, || self.nature(module)).pop();
        if let (Some(process), Some(item)) = (self.clients.get_mut(&pid), item) {
            process.jobs.push_back(Job::Call { spec, args, item });
        }
    }

    fn module_of(&self, pid: u32) -> Hash {
        self.clients.get(&pid).map_or(BAD_MODULE, |process| process.module)
    }

    /// Opens a map, if there is credit for it; gives its number.
    fn open_map(&mut self, pid: u32, retries: u32, is_window: bool) -> Option<u64> {
        let spec = self.spec(retries);
        let process = self.clients.get_mut(&pid)?;
        let book = process.book()?;
        if !book.take_credit(ENTRY_COST) {
            return None;
        }
        let seq = book.open(0);
        process.handles.insert(seq, Handle { count: 0, is_whole: false, is_window });
        self.say(pid, FromClient::Map { seq, spec });
        Some(seq)
    }

    /// Adds items to an open map, in one message.
    fn add_items(&mut self, pid: u32, seq: u64, count: u32, retries: u32) {
        let Some(args) = self.args(pid, count) else { return };
        let module = self.module_of(pid);
        let items = items_of(&args, retries, || self.nature(module));
        if let Some(process) = self.clients.get_mut(&pid) {
            process.jobs.push_back(Job::Items { seq, args, items });
        }
    }

    fn map(&mut self, pid: u32) {
        let retries = self.retries();
        let Some(seq) = self.open_map(pid, retries, false) else { return };
        let mut left = self.rng.below(MAP_ITEMS) as u32;
        while left > 0 {
            let count = (1 + self.rng.below(left.into()) as u32).min(self.settings.chunk_items);
            self.add_items(pid, seq, count, retries);
            left -= count;
        }
        if let Some(process) = self.clients.get_mut(&pid) {
            process.jobs.push_back(Job::Close { seq });
        }
    }

    fn scatter(&mut self, pid: u32) {
        let number = self.rng.below(u64::MAX) as i64;
        let is_large = self.rng.chance(400);
        let padding = if is_large { quicsand::wire::INLINE_BYTES as u64 + self.rng.below(500) } else { self.rng.below(40) };
        let bytes = encode(number, padding as u32);
        let (len, hash) = (bytes.len() as u64, Hash::of(&bytes));
        let share = self.settings.config.client_bytes / 4;
        let Some(process) = self.clients.get_mut(&pid) else { return };
        let kept: u64 = process.inline.values().sum();
        let Some((id, book)) = &mut process.member else { return };
        let is_inline = !is_large && kept + ENTRY_COST + len <= share && book.take_inline(len);
        if !is_inline && !book.take_credit(ENTRY_COST) {
            return;
        }
        let seq = if is_inline { book.open_inline(len) } else { book.open(1) };
        if is_inline {
            let values = quicsand::codec::Run::single(bytes.clone()).unwrap_or_default();
            book.receive(quicsand::wire::ToClient::Done { seq, first: 0, values }, &mut Vec::new());
            process.inline.insert(seq, ENTRY_COST + len);
        } else {
            book.keep_data(seq, bytes.clone().into(), hash);
        }
        self.graph.data.insert(EntryId { client: *id, seq }.key(0), number);
        process.handles.insert(seq, Handle { count: 1, is_whole: true, is_window: false });
        self.say(pid, FromClient::Data { seq, len, hash, bytes: is_inline.then_some(bytes) });
        // Connections break most easily when much goes over them.
        if !is_inline && self.is_stormy() && self.rng.chance(80) {
            self.lose_client_soon(pid);
        }
    }

    fn open_window(&mut self, pid: u32) {
        let (retries, left) = (self.retries(), 5 + self.rng.below(40) as u32);
        let Some(seq) = self.open_map(pid, retries, true) else { return };
        if let Some(process) = self.clients.get_mut(&pid) {
            process.windows.push(Window { seq, left, consumed: 0, released: 0, retries });
        }
        self.draw(pid, seq);
    }

    /// Windows draw more, end, or are left in the middle.
    fn draw_windows(&mut self, pid: u32) {
        let seqs: Vec<u64> =
            self.clients.get(&pid).map_or_else(Vec::new, |process| process.windows.iter().map(|w| w.seq).collect());
        for seq in seqs {
            if self.rng.chance(40) {
                self.leave_window(pid, seq);
            } else {
                self.draw(pid, seq);
            }
        }
    }

    fn draw(&mut self, pid: u32, seq: u64) {
        let more = 1 + self.rng.below(u64::from(self.settings.chunk_items)) as u32;
        let Some(process) = self.clients.get_mut(&pid) else { return };
        let count = process.handles.get(&seq).map_or(0, |handle| handle.count);
        let Some(window) = process.windows.iter_mut().find(|window| window.seq == seq) else { return };
        if count - window.consumed > 30 {
            return;
        }
        let (more, retries) = (more.min(window.left), window.retries);
        window.left -= more;
        if more > 0 {
            self.add_items(pid, seq, more, retries);
        } else if let Some(process) = self.clients.get_mut(&pid)
            && process.handles.get_mut(&seq).is_some_and(|handle| !std::mem::replace(&mut handle.is_whole, true))
        {
            process.jobs.push_back(Job::Close { seq });
        }
    }

    /// A window is dropped in the middle: its map is closed and released.
    pub(super) fn leave_window(&mut self, pid: u32, seq: u64) {
        let Some(process) = self.clients.get_mut(&pid) else { return };
        process.windows.retain(|window| window.seq != seq);
        let is_closed = process.handles.get(&seq).is_none_or(|handle| handle.is_whole);
        if !is_closed {
            self.say(pid, FromClient::Close { seq });
        }
        self.drop_handle(pid, seq);
    }

    fn cancel_some(&mut self, pid: u32) {
        let Some(process) = self.clients.get(&pid) else { return };
        let Some((id, _)) = &process.member else { return };
        let picked =
            self.rng.pick(process.handles.iter().map(|(&seq, handle)| (seq, handle.count)).collect::<Vec<_>>().into_iter());
        let Some((seq, count)) = picked.filter(|(_, count)| *count > 0) else { return };
        let first = self.rng.below(count);
        let span = Span { entry: EntryId { client: *id, seq }, first, count: 1 + self.rng.below(count - first) };
        self.troubles.cancelled.extend(super::program::keys_of(&span));
        self.say(pid, FromClient::Cancel { span });
    }

    fn drop_some(&mut self, pid: u32) {
        let Some(process) = self.clients.get(&pid) else { return };
        let whole = process.handles.iter().filter(|(_, handle)| handle.is_whole && !handle.is_window);
        let mut seqs: Vec<u64> = whole.map(|(&seq, _)| seq).collect();
        if self.rng.chance(300) {
            // As when a function returns what it computed last: whatever that was made of is needed no more, unless it is lost.
            seqs.pop();
            return seqs.into_iter().for_each(|seq| self.drop_handle(pid, seq));
        }
        if let Some(seq) = self.rng.pick(seqs.into_iter()) {
            self.drop_handle(pid, seq);
        }
    }

    fn gather_some(&mut self, pid: u32) {
        let Some(process) = self.clients.get(&pid) else { return };
        let Some((id, _)) = &process.member else { return };
        let id = *id;
        let all: Vec<_> = process.handles.iter().map(|(&seq, handle)| (seq, handle.count)).collect();
        if let Some((seq, count)) = self.rng.pick(all.into_iter()) {
            (0..count).for_each(|index| drop(self.look(pid, EntryId { client: id, seq }.key(index))));
        }
    }

    fn ask_about_all(&mut self, pid: u32) {
        let is_count = self.rng.chance(500);
        let Some(process) = self.clients.get_mut(&pid) else { return };
        let Some((id, book)) = &mut process.member else { return };
        let span = |(&seq, handle): (&u64, &Handle)| Span { entry: EntryId { client: *id, seq }, first: 0, count: handle.count };
        let spans = process.handles.iter().map(span).collect();
        let (query, message) = book.ask(|query| match is_count {
            true => FromClient::Count { query, spans },
            false => FromClient::Explain { query, spans },
        });
        process.queries.insert(query);
        self.say(pid, message);
    }
}
