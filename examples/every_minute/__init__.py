"""The job that the report is about, under attack: a timer starts it every second, unless it still runs.

`make run` starts `storm`, which runs `job` in two worker processes, kills them at random, and ends with
`report`: the proof, read afresh from the hub and from the job's own tables.
"""
