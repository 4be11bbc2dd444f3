"""IDZoom data sets [paper names it, ours in every detail]: records, shards, and the steps that build them.

Pictures in, records and tables out: no queue, no database, no byte store.
"""
