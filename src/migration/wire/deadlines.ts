/** How long the ends of a migration may say nothing, milliseconds. Both are of this version, so what one says often enough is enough for the other. */

/** How often the source says on each connection that it is there, and the destination on the one for control. */
export const aliveMs = 1000;
/** Whoever should hear that, and has heard nothing for so long, gives the connection up. */
export const silenceMs = 5000;
/** How long a connection may take to say what it is for, and one for pages may be there before the one for control. */
export const joinMs = 5000;
