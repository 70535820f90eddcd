"""Films painted: shots and statistics, steadiness over time, segments that outlive a crash."""
