//! Every bound of the protocol, each with its reason. Sizes in bytes, times with their unit last.
//!
//! Hostile input costs at most what stands here (rule 10 of the design).

/// One signed entry of the ledger. A submission of a few hundred builds fits; a build's files travel
/// as blobs, never inside an entry.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// One batch of entries, as a leader writes it into the log: the largest entry, whatever else waits with it, and
/// room to spare. Everything that carries batches allows this many.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// One gossip statement (accusation, refutation, presence).
pub const STATEMENT_BYTES_MAX: usize = 8 << 10;

/// One message of the credential exchange, before anything is known of the speaker.
pub const HELLO_BYTES_MAX: usize = 16 << 10;

/// Nesting of a decoded value: deep nesting costs stack, and no type of ours needs more.
pub const DECODE_DEPTH_MAX: usize = 16;

/// Length of a host's name: a DNS label and no more.
pub const NAME_BYTES_MAX: usize = 63;

/// Successors of replaced hosts that are awaited at one time: a rack that burnt down, and then some.
pub const SUCCESSORS_MAX: usize = 64;

/// Members of a mesh: the table of members is the one thing that grows with it.
pub const MEMBERS_MAX: usize = 10_000;

/// Voters at most; more cost latency and add no safety that a homelab could use.
pub const VOTERS_MAX: usize = 7;

/// Survivors that a recovery names: all voters, and more signers than a person keeps in view.
pub const SURVIVORS_MAX: usize = 16;

/// Invitations open at one time.
pub const INVITATIONS_MAX: usize = 1_000;

/// Longest life of an invitation, in milliseconds: thirty days (rule 8: what is temporary ends).
pub const INVITATION_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Builds in one submission.
pub const SUBMISSION_BUILDS_MAX: usize = 2_000;

/// Builds that are not finished.
pub const OPEN_BUILDS_MAX: usize = 100_000;

/// Finished builds that the ledger remembers; the oldest go first.
pub const FINISHED_BUILDS_MAX: usize = 10_000;

/// Attempts of one build, whatever their end: a build that loses its host ten times is shown to a person.
pub const ATTEMPTS_MAX: u32 = 10;

/// Needs of one build.
pub const NEEDS_MAX: usize = 500;

/// Inputs of one build.
pub const INPUTS_MAX: usize = 64;

/// Words of a command, entries of an environment, output patterns, tags.
pub const WORDS_MAX: usize = 4_096;

/// Bytes of a build's command, environment and patterns together.
pub const SPEC_BYTES_MAX: usize = 256 << 10;

/// Cores that one build may ask for, and that one host may offer.
pub const CORES_MAX: u32 = 4_096;

/// Memory that one build may ask for, in MiB: 4 TiB.
pub const MEMORY_MIB_MAX: u64 = 4 << 20;

/// Longest timeout of a build, in seconds: a week.
pub const TIMEOUT_S_MAX: u64 = 7 * 24 * 3_600;

/// Bytes of a text in an entry that a person wrote or reads (a reason, an error).
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Request ids that the ledger remembers, so that a retry is not a second build.
pub const REQUESTS_MAX: usize = 20_000;

/// Orders that a target remembers having carried out: more than reach one host in the life of a leader. An older
/// one is refused by its number.
pub const ORDERS_REMEMBERED: usize = 64;

/// One frame between who brings a warrant and its target: an order with a reason of full length and the signatures of
/// as many voters as there can be.
pub const WARRANT_FRAME_BYTES_MAX: usize = 4 << 10;

/// Links of a roster's chain that one hearing follows: years of changes, and less than a second of checking.
pub const WARRANT_LINKS_MAX: usize = 256;

/// Records of signers that came and went which a ledger keeps, to show them to who was away: those of a decade of a large
/// mesh, and few enough to be brought with every order.
pub const LINKS_KEPT_MAX: usize = 64;

/// For how long a target's nonce is good, in milliseconds of its own BOOTTIME: a round of signatures over slow links,
/// and too short for anybody to wait for a better moment.
pub const NONCE_MS_MAX: u64 = 10_000;

/// Age of a roster, in milliseconds, up to which a target takes orders of a leader: who votes a week later may be
/// somebody else.
pub const ROSTER_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Longest life of an order in ledger time, in milliseconds: what is not done within the hour is judged anew.
pub const ORDER_MS_MAX: u64 = 3_600_000;

/// Longest that running builds are waited for before a host restarts, in milliseconds.
pub const GRACE_MS_MAX: u64 = 600_000;

/// For how long a build that was done speaks for its host, in milliseconds of ledger time: longer than a host needs to
/// be declared down, and short beside any cool-down.
pub const PROGRESS_MS: u64 = 60_000;

/// Bytes of the words that say who asked for an order: a user's name and a host's.
pub const REQUESTER_BYTES_MAX: usize = 128;

/// Orders of which a voter remembers what it signed for, each until it expires. Far more than any budget allows in an
/// hour; a voter whose notes are full signs nothing more.
pub const COSIGNED_MAX: usize = 64;

/// Signatures of others that are remembered by whoever collects them, to notice two of one voter for one order: some
/// dozens of orders with all their voters.
pub const APPROVALS_KEPT: usize = 256;

/// Bytes of what a guard or a co-signing voter stores: the largest number of receipts and of notes, with room to spare.
pub const GUARD_BYTES_MAX: usize = 64 << 10;

/// Bytes of what a guard knows of the roster: the keys of all members that there can be, and of as many revoked ones.
pub const KNOWN_BYTES_MAX: usize = 4 << 20;

/// Blocks, drains and pauses at one time: one for each host of a large mesh, and some.
pub const MEASURES_MAX: usize = 1_000;

/// Longest life of a block, drain or pause, in milliseconds: thirty days (rule 8: what is temporary ends).
pub const MEASURE_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// How long a host that was down and nothing else has to be up before it gets builds again, in milliseconds: several
/// probes by every watcher, and longer than a daemon that ends at once takes to start anew.
pub const RETURNED_MS: u64 = 10_000;

/// For how long a host may be healed on what its last canary said, in milliseconds. A step that was held back for longer,
/// by a budget or by a person, is tried out again first: an hour costs one build, and a host may well have been mended.
pub const CANARY_COUNTS_MS: u64 = 3_600_000;

/// Returns from being down within ten minutes that are forgiven so: whoever comes back a second time has a canary to
/// build.
pub const FLAPS_FORGIVEN: usize = 1;

/// How far ledger time may be behind when nothing happens at all, in milliseconds: rosters age by it, in days.
pub const TIME_IDLE_MS_MAX: u64 = 3_600_000;

/// How far ledger time may be behind while something stands that ends by time alone, in milliseconds: what is left of
/// a block is shown to people in minutes.
pub const TIME_STANDS_MS_MAX: u64 = 60_000;

/// Steps of healing that the ledger remembers: a day of a busy mesh. The oldest go first.
pub const HEAL_STEPS_MAX: usize = 1_000;

/// Orders that the ledger remembers; an open one is never forgotten, and each ends within the hour.
pub const ORDERS_WRITTEN_MAX: usize = 64;

/// Parts of the trail that the ledger names of those that were put away; older ones are found by their chain.
pub const AUDIT_PARTS_MAX: usize = 64;

/// Lines of the trail of healing that the ledger remembers: years of a quiet mesh. The oldest are put away before.
pub const AUDIT_LINES_MAX: usize = 2_000;

/// Age from which they are put away, in milliseconds of ledger time: ninety days.
pub const AUDIT_MS_MAX: u64 = 90 * 24 * 3_600_000;

/// Bytes of a policy as text: every key once, with comments.
pub const POLICY_BYTES_MAX: usize = 8 << 10;

/// Attempts that a verdict names as its evidence, the newest: enough for a person to look at.
pub const EVIDENCE_MAX: usize = 16;

/// Bytes of the files that `mesh run` sends along.
pub const WORKSPACE_BYTES_MAX: u64 = 1 << 30;

/// Files that `mesh run` sends along.
pub const WORKSPACE_FILES_MAX: usize = 100_000;

/// Bytes of one blob.
pub const BLOB_BYTES_MAX: u64 = 64 << 30;

/// Output files of one attempt.
pub const OUTPUT_FILES_MAX: usize = 100_000;

/// Bytes of an encoded list of outputs: the largest number of files, with paths of ordinary length. One bound
/// for who makes it, who fetches it and who places its files.
pub const MANIFEST_BYTES_MAX: usize = OUTPUT_FILES_MAX * 512;

/// Bytes of a build's log that are kept; the middle of a longer one is cut. A running build's log is in
/// memory, for those who follow it.
pub const LOG_BYTES_MAX: u64 = 16 << 20;

const _: () = {
    assert!(SPEC_BYTES_MAX < ENTRY_BYTES_MAX);
    assert!(ENTRY_BYTES_MAX < BATCH_BYTES_MAX / 2);
    assert!(STATEMENT_BYTES_MAX < ENTRY_BYTES_MAX);
    assert!(VOTERS_MAX % 2 == 1);
    assert!(FINISHED_BUILDS_MAX < OPEN_BUILDS_MAX);
    // Order (reason, requester, the rest), approval, and a hundred bytes and a bit for each signature.
    assert!(TEXT_BYTES_MAX + REQUESTER_BYTES_MAX + 400 + 300 + (VOTERS_MAX + 1) * 110 < WARRANT_FRAME_BYTES_MAX);
    assert!(ORDERS_REMEMBERED * 400 < GUARD_BYTES_MAX && COSIGNED_MAX * 400 < GUARD_BYTES_MAX);
    assert!(2 * MEMBERS_MAX * 40 < KNOWN_BYTES_MAX);
    assert!(LINKS_KEPT_MAX < WARRANT_LINKS_MAX);
    assert!(MEASURE_MS_MAX <= INVITATION_MS_MAX);
};
