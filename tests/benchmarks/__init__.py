"""How fast and how large the program is, each figure beside a named yardstick of the same run.

    python -m tests.benchmarks                   all of them: a quarter of an hour or more
    python -m tests.benchmarks plan resume       some of them
    python -m tests.benchmarks --quick           tiny sizes, in a minute: that the code still runs
    python -m tests.benchmarks --write           all, with the figures written to RESULTS.md

    pipeline   CSV to durable ledger, unthrottled   beside boto3 in threads, and bare aioboto3
    plan       a million rows planned               beside pandas' read_csv of the same file
    memory     peak memory of `run` and `plan`      over 10 thousand to a million rows
    resume     `run` over a ledger that is finished
    append     what one append to the ledger costs the event loop
    pacing     our controllers in every scenario   beside a fixed rate, AIMD and CUBIC; simulated
    throttling how much of a quota a run gets      beside boto3's and aioboto3's retry modes

Whatever is measured runs in a process of its own, which is started for it. What is compared takes
turns, several times over: a machine that has other things to do slows all of them alike. A figure
is the best of the turns, because what disturbs a measurement can only make it slower; the median
is told beside it. Times on the clock say how long one waits, CPU times (user and system, of all
threads) how much work it is; the latter are the steadier ones.
"""
