#include "theorem/price.h"

void price_follow(float *price, const float *load, int n, price_rule rule, float rate)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++) {
        float excess = load[i] - 1.0f;
        price[i] += rate * (rule == PRICE_SIGN ? (float)(excess > 0.0f) - (float)(excess < 0.0f) : excess);
        sum += (double)price[i];
    }
    for (int i = 0; i < n; i++)
        price[i] -= (float)(sum / n);
}
