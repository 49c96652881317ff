#!/bin/sh
# What the chart calls a python file is not run: this has short snapshots, the lease and a clean stop.
exec heartwheel run
