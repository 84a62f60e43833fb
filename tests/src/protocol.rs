//! What host and guest say to each other: the job handed in, the lines handed back.
