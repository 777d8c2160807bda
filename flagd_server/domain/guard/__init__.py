"""The kill switch's judgement, pure: recorded events in, decisions out."""
