/*
 * The commit protocol of docs/migration.md, written down once more for spin: a second opinion, made from the document and not from
 * the reducers. One process takes any step that is possible. A message that was sent stays in flight and may be delivered at any later
 * time, any number of times, or never: loss, copies and every order.
 *
 *   spin -a commit.pml && cc -O2 -DSAFETY -DNOREDUCE -o pan pan.c && ./pan -m1000000
 *
 * Restarts of either host: RESTARTS. Failures (cancel, time limits, refusals, an owner who gives up): FAILURES.
 */
#ifndef RESTARTS
#define RESTARTS 2
#endif
#ifndef FAILURES
#define FAILURES 1
#endif

mtype:source = { idle, beginning, precopy, stopping, stopped, committing, inDoubt, releasing, released, aborting, reclaiming,
                 stayed, orphaned, gone };
mtype:destination = { waiting, receiving, verifying, preparing, prepared, owning, running, abandoning, aborted, dropped, mayHaveRun };
mtype:record = { none, begin, abort, commit, reclaim, wasReleased, isPrepared, own, isAborted };

mtype:source s = idle;
mtype:destination d = waiting;
mtype:record sJournal = none;
mtype:record dJournal = none;

/* What is true of the guest. */
bool sHas = true;      /* the source has it whole */
bool sRuns = true;
bool dWhole = false;
bool dRuns = false;
bool ranThere = false; /* it has run on the destination */
bool stale = false;    /* the source's has run since `end` */
bool lost = false;     /* a restart or an owner ended the only copy: nothing but I1 can be asked */

/* In flight; sessions are those of the destination's process: 0, 1, 2. */
bool mOffer, mCommit, mCancel, mAsk, mPrepared, mRunning, mAborted, mMayHaveRun;
bool mEnd[3];
bool mAccept[3];
bool mDropped[3];
byte session = 0;
byte agreed = 3;   /* session that the source has agreed to; 3: none */
byte restarts = 0;
byte failures = 0;

inline check() {
  assert(!(sRuns && dRuns));                      /* I1 */
  assert(!(sRuns && ranThere));                   /* I1 over time */
  assert(lost || sHas || dWhole || dRuns);        /* I2 */
}
inline resume() { sRuns = true; stale = true; }
inline dropIt() { dWhole = false; }

active proctype world() {
end:
  do
  /* ---- source ---- */
  :: atomic { s == idle -> s = beginning }
  :: atomic { s == beginning -> sJournal = begin; s = precopy; mOffer = true }
  :: atomic { s == precopy && agreed == 3 -> mOffer = true }
  :: atomic { s == precopy -> agreed = 3; mOffer = true }                       /* a new link */
  :: atomic { s == precopy && agreed == 3 && mAccept[0] -> agreed = 0 }
  :: atomic { s == precopy && agreed == 3 && mAccept[1] -> agreed = 1 }
  :: atomic { s == precopy && agreed == 3 && mAccept[2] -> agreed = 2 }
  :: atomic { s == precopy && agreed != 3 -> s = stopping }
  :: atomic { s == stopping -> sRuns = false; s = stopped; stale = false; mEnd[agreed] = true }
  :: atomic { s == stopped && mPrepared -> s = committing }
  :: atomic { s == orphaned && mPrepared -> s = committing }
  :: atomic { s == committing -> sJournal = commit; s = inDoubt; mCommit = true }
  :: atomic { s == inDoubt -> mCommit = true }
  :: atomic { s == orphaned -> mAsk = true }
  :: atomic { s == inDoubt && mRunning -> s = releasing }
  :: atomic { s == releasing -> sJournal = wasReleased; s = released; sHas = false; check() }
  :: atomic { (s == inDoubt || s == orphaned) && mAborted -> s = reclaiming }
  :: atomic { s == reclaiming -> sJournal = reclaim; mCancel = true;
              if :: sHas -> resume(); s = stayed :: else -> s = gone fi; check() }
  :: atomic { (s == precopy || s == stopping || s == stopped) && mAborted -> s = aborting }
  :: atomic { (s == precopy || s == stopping || s == stopped) && agreed < 3 && mDropped[agreed] -> s = aborting }
  :: atomic { (s == stopping || s == stopped) -> s = aborting }                 /* link lost, or too late */
  :: atomic { s == aborting -> sJournal = abort; mCancel = true;
              if :: sHas -> if :: !sRuns -> resume() :: else fi; s = stayed :: else -> s = gone fi; check() }
  :: atomic { (s == stayed || s == gone) && mPrepared -> mCancel = true }
  :: atomic { failures < FAILURES && (s == beginning || s == precopy) -> failures++; s = aborting }

  /* ---- destination ---- */
  :: atomic { (d == waiting || d == receiving) && mOffer -> d = receiving; mAccept[session] = true }
  :: atomic { d == receiving && mEnd[session] -> d = verifying }
  :: atomic { d == verifying -> dWhole = true; d = preparing }
  :: atomic { d == preparing -> dJournal = isPrepared; d = prepared; mPrepared = true }
  :: atomic { d == prepared -> mPrepared = true }
  :: atomic { d == prepared && mCommit -> d = owning }
  :: atomic { d == owning -> dJournal = own; d = running; assert(dWhole); assert(!stale); dRuns = true; ranThere = true;
              mRunning = true; check() }
  :: atomic { d == running -> mRunning = true }
  :: atomic { d == prepared && mCancel -> d = abandoning }
  :: atomic { (d == receiving || d == verifying || d == preparing) && mCancel -> dropIt(); d = dropped; mDropped[session] = true; check() }
  :: atomic { (d == waiting || d == dropped || d == receiving) && (mCommit || mAsk) -> d = abandoning }
  :: atomic { d == abandoning -> dJournal = isAborted; dropIt(); d = aborted; mAborted = true; check() }
  :: atomic { d == aborted && (mCommit || mAsk || mOffer) -> mAborted = true }
  :: atomic { d == dropped && mOffer -> mDropped[session] = true }
  :: atomic { d == mayHaveRun && (mCommit || mAsk) -> mMayHaveRun = true }
  :: atomic { failures < FAILURES && (d == receiving || d == verifying) -> failures++; dropIt(); d = dropped; mDropped[session] = true; check() }
  :: atomic { failures < FAILURES && d == prepared -> failures++; lost = lost || !sHas; d = abandoning }
  :: atomic { failures < FAILURES && d == owning -> failures++; d = prepared }  /* OWN not written, or only on the disk */
  :: atomic { failures < FAILURES && d == owning -> failures++; dJournal = own; d = prepared }

  /* ---- restarts: what was being written is on the disk or not ---- */
  :: atomic { restarts < RESTARTS && s != idle -> restarts++;
       if
       :: s == beginning -> sJournal = begin
       :: s == committing -> sJournal = commit
       :: s == aborting -> sJournal = abort
       :: s == reclaiming -> sJournal = reclaim
       :: s == releasing -> sJournal = wasReleased
       :: true
       fi;
       lost = lost || (sHas && !dRuns && !(dWhole && d != abandoning && (sJournal == begin || sJournal == commit)));
       sHas = false; sRuns = false; agreed = 3;
       if
       :: sJournal == begin -> s = orphaned
       :: sJournal == commit -> s = inDoubt
       :: sJournal == wasReleased -> s = released
       :: else -> s = gone
       fi; check() }
  :: atomic { restarts < RESTARTS && session < 2 -> restarts++; session++;
       if
       :: d == preparing -> dJournal = isPrepared
       :: d == owning -> dJournal = own
       :: d == abandoning -> dJournal = isAborted
       :: true
       fi;
       lost = lost || dRuns || (dWhole && !sHas) || dJournal == own;
       dRuns = false; dWhole = false;
       if
       :: dJournal == isPrepared -> d = abandoning
       :: dJournal == own -> d = mayHaveRun
       :: dJournal == isAborted -> d = aborted
       :: else -> d = waiting
       fi; check() }
  :: atomic { s == inDoubt && mMayHaveRun -> skip }
  od
}
