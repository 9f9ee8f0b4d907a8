"""From a packet dump to packet runs: rtpdump, RTP, RTCP, SDP, RED, order, loss, and the timing
metadata beside it.
"""
